"""A policy: backbone, preprocessor, action codec and head, in memory and as one folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from embodied_midtrain.artifacts import StageError, file_sha256, fingerprint_of, read_json, write_json
from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.backbones.precision import pick_precision
from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.policies.codec import ActionCodec
from embodied_midtrain.policies.encoder import encode
from embodied_midtrain.policies.heads import TwoBranchHead
from embodied_midtrain.policies.preprocess import Preprocessor
from embodied_midtrain.policies.reader import Reader, Sight
from embodied_midtrain.robots.actions import ActionNormaliser

Mode = Literal["full", "lora", "frozen"]
Answer = tuple[Tensor, Tensor | None]
"""What `TwoBranchHead` gives: arm [b, chunk, arm], gripper logits [b, chunk]."""
SETTINGS, HEAD, BACKBONE = "policy.json", "head.safetensors", "backbone"


@dataclass(frozen=True, kw_only=True)
class PolicyShape:
    """What it takes to build the trained parts of a policy again, beside spec, normaliser and preprocessor.

    `camera` is the side in pixels of the demonstrations' frames: a sharper camera would show something else.
    `hidden` is the width of the backbone's states, `sight` what the reader gets of a frame (frozen mode only).
    The other fields are those of `FinetuneConfig`.
    """

    mode: Mode
    chunk: int
    executed: int
    camera: int
    hidden: int
    layer: int
    widths: tuple[int, ...]
    reader_width: int
    reader_queries: int
    reader_blocks: int
    sight: Sight | None


class QueryNet(nn.Module):
    """The query token, zero at first (VLM4VLA), and the head that reads the last layer's state at it."""

    def __init__(self, shape: PolicyShape, spec: ActionSpec) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, shape.hidden))
        self.head = _head(shape.hidden, shape, spec)


class ReaderNet(nn.Module):
    """The attention reader and its head, on a frozen backbone's states."""

    def __init__(self, shape: PolicyShape, spec: ActionSpec) -> None:
        super().__init__()
        assert shape.sight is not None, "a frozen policy knows what its reader sees"
        self.reader = Reader(
            shape.sight,
            width=shape.reader_width,
            queries=shape.reader_queries,
            blocks=shape.reader_blocks,
        )
        self.head = _head(self.reader.features, shape, spec)

    def forward(self, states: Tensor) -> Answer:
        """[b, size] -> `TwoBranchHead`'s output."""
        answer: Answer = self.head(self.reader(states))
        return answer


def _head(features: int, shape: PolicyShape, spec: ActionSpec) -> TwoBranchHead:
    return TwoBranchHead(features, shape.chunk, len(spec.arm), spec.gripper is not None, shape.widths)


def build_net(shape: PolicyShape, spec: ActionSpec) -> QueryNet | ReaderNet:
    """The trained parts with new weights, from torch's global generator."""
    return ReaderNet(shape, spec) if shape.mode == "frozen" else QueryNet(shape, spec)


@dataclass(frozen=True)
class Policy:
    """Everything between a camera frame with an instruction and a chunk of actions. It is an `Actor`."""

    backbone: Backbone
    shape: PolicyShape
    preprocessor: Preprocessor
    codec: ActionCodec
    net: QueryNet | ReaderNet
    identity: str = ""
    """Changes when its answers may; set by `load_policy`."""

    @property
    def chunk(self) -> int:
        return self.shape.chunk

    @property
    def executed(self) -> int:
        return self.shape.executed

    @property
    def spec(self) -> ActionSpec:
        return self.codec.spec

    @property
    def size(self) -> int:
        return self.shape.camera

    def predict(self, rows: Sequence[Rendered]) -> Answer:
        """Rows of the preprocessor (of `with_vision`) to the head's answer; gradients where they are wanted."""
        if isinstance(self.net, ReaderNet):
            sight = self.net.reader.sight
            layer, cells = self.shape.layer, sight.cells > 0
            flat, _ = encode(self.backbone, rows, layer=layer, text_tokens=sight.text, cells=cells)
            answer: Answer = self.net(flat)
        else:
            batch = self.backbone.collate(rows)
            states = self.backbone.states(batch, queries=self.net.query)
            answer = self.net.head(self.backbone.last(states, batch, 1)[:, 0])
        return answer

    @torch.inference_mode()
    def act(self, frames: NDArray[np.uint8], instructions: list[str]) -> NDArray[np.float32]:
        """Frames [n, h, w, 3] and n instructions to actions [n, chunk, width], in the spec's units and bounds."""
        self.net.eval()
        self.backbone.model.eval()
        rows = self.preprocessor.render(self.backbone, frames, instructions)
        device = self.backbone.device
        half = isinstance(self.net, QueryNet) and pick_precision("auto", device) is torch.bfloat16
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            arm, logits = self.predict(rows)
        closed = None if logits is None else (logits > 0).cpu().numpy()
        return self.codec.decode(arm.float().cpu().numpy(), closed)

    def save(self, folder: Path) -> None:
        """Write settings, head and backbone into a new folder."""
        folder.mkdir(parents=True)
        self.backbone.save(folder / BACKBONE)
        save_file({k: v.contiguous() for k, v in self.net.state_dict().items()}, folder / HEAD)
        settings = {
            "shape": asdict(self.shape),
            "preprocessor": asdict(self.preprocessor),
            "spec": self.spec.to_json(),
            "normaliser": self.codec.normaliser.to_json(),
            "backbone": {"name": self.backbone.name, "weights": _weights(folder / BACKBONE)},
        }
        write_json(folder / SETTINGS, settings)


def load_policy(folder: Path) -> Policy:
    """The policy that `Policy.save` wrote.

    Raises:
        StageError: where files are missing or damaged, or the backbone in the folder is not the policy's.
    """
    settings: dict[str, Any] = read_json(folder / SETTINGS)
    found, wanted = _weights(folder / BACKBONE), settings["backbone"]["weights"]
    if found != wanted:
        changed = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        raise StageError(
            f"{folder / BACKBONE} is not the backbone that this policy was trained with ({settings['backbone']['name']}"
            f"): {', '.join(changed)} differ. A head works with its own backbone only; restore it or fine-tune again."
        )
    sight = Sight(**settings["shape"]["sight"]) if settings["shape"]["sight"] else None
    shape = PolicyShape(**{**settings["shape"], "widths": tuple(settings["shape"]["widths"]), "sight": sight})
    spec = ActionSpec.from_json(settings["spec"])
    net = build_net(shape, spec)
    try:
        net.load_state_dict(load_file(folder / HEAD))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise StageError(f"{folder / HEAD} is damaged ({error}); run the fine-tuning again") from error
    codec = ActionCodec(spec, ActionNormaliser.from_json(settings["normaliser"]))
    backbone = load_backbone(str(folder / BACKBONE))
    net.to(backbone.device)
    identity = fingerprint_of({"settings": settings, "head": file_sha256(folder / HEAD)})
    return Policy(backbone, shape, Preprocessor(**settings["preprocessor"]), codec, net, identity)


def _weights(folder: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(folder.glob("*.safetensors"))}
