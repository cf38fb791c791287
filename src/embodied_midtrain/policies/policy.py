"""A policy: backbone, preprocessor, action codec and head, in memory and as one folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from embodied_midtrain.artifacts import StageError, file_sha256, fingerprint_of, read_json, write_json
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.backbones.precision import pick_precision
from embodied_midtrain.config import ConfigError, structure
from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.policies.build import build_net
from embodied_midtrain.policies.codec import ActionCodec
from embodied_midtrain.policies.fast import FILE as FAST
from embodied_midtrain.policies.fast import FastTokenizer
from embodied_midtrain.policies.flow import FlowNet
from embodied_midtrain.policies.net import Net
from embodied_midtrain.policies.preprocess import Preprocessor
from embodied_midtrain.policies.reading import ReaderFlowNet
from embodied_midtrain.policies.shape import PolicyShape
from embodied_midtrain.robots.actions import ActionNormaliser

SETTINGS, HEAD, BACKBONE = "policy.json", "head.safetensors", "backbone"


@dataclass(frozen=True)
class Policy:
    """Everything between a camera frame with an instruction and a chunk of actions. It is an `Actor`."""

    backbone: Backbone
    shape: PolicyShape
    preprocessor: Preprocessor
    codec: ActionCodec
    net: Net
    identity: str = ""
    """Changes when its answers may; set by `load_policy`."""

    def reseeded(self, seed: int) -> Policy:
        """The same with other noise to begin from, where the head draws any (flow); it acts otherwise, and is another.

        The net is shared: use one of the two at a time.
        """
        if isinstance(self.net, (FlowNet, ReaderFlowNet)):
            self.net.sampling_seed = seed
        return replace(self, identity=f"{self.identity} sampling {seed}")

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

    @property
    def precision(self) -> torch.dtype:
        """Of the arithmetic; a frozen policy's backbone computes as its weights are."""
        return torch.float32 if self.shape.mode == "frozen" else pick_precision("auto", self.backbone.device)

    @torch.inference_mode()
    def act(self, frames: NDArray[np.uint8], instructions: list[str]) -> NDArray[np.float32]:
        """Frames [n, h, w, 3] and n instructions to actions [n, chunk, width], in the spec's units and bounds."""
        self.net.eval()
        self.backbone.model.eval()
        rows = self.preprocessor.render(self.backbone, frames, instructions)
        with torch.autocast(self.backbone.device.type, torch.bfloat16, enabled=self.precision is torch.bfloat16):
            arm, logits = self.net.answer(self.backbone, rows)
        closed = None if logits is None else (logits > 0).cpu().numpy()
        return self.codec.decode(arm.float().cpu().numpy(), closed)

    def save(self, folder: Path) -> None:
        """Write settings, head and backbone into a new folder."""
        folder.mkdir(parents=True)
        self.backbone.save(folder / BACKBONE)
        save_file({k: v.contiguous() for k, v in self.net.state_dict().items()}, folder / HEAD)
        self.net.save(folder)
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
    if missing := {"shape", "preprocessor", "spec", "normaliser", "backbone"} - settings.keys():
        raise StageError(f"{folder / SETTINGS} lacks {', '.join(sorted(missing))}; run the fine-tuning again")
    found, wanted = _weights(folder / BACKBONE), settings["backbone"]["weights"]
    if found != wanted:
        changed = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        raise StageError(
            f"{folder / BACKBONE} is not the backbone that this policy was trained with ({settings['backbone']['name']}"
            f"): {', '.join(changed)} differ. A head works with its own backbone only; restore it or fine-tune again."
        )
    try:
        shape = structure(PolicyShape, settings["shape"], f"{folder / SETTINGS}: shape")
        preprocessor = structure(Preprocessor, settings["preprocessor"], f"{folder / SETTINGS}: preprocessor")
        codec = ActionCodec(
            ActionSpec.from_json(settings["spec"]), ActionNormaliser.from_json(settings["normaliser"])
        ).checked()
    except (ConfigError, ValueError, TypeError) as error:
        raise StageError(f"{folder / SETTINGS}: {error}") from error
    backbone = load_backbone(str(folder / BACKBONE))
    net = build_net(shape, codec.spec, backbone, FastTokenizer.load(folder) if shape.speaks else None)
    try:
        net.load_state_dict(load_file(folder / HEAD))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise StageError(f"{folder / HEAD} is damaged ({error}); run the fine-tuning again") from error
    net.to(backbone.device)
    spoken = {"fast": file_sha256(folder / FAST)} if shape.speaks else {}
    identity = fingerprint_of({"settings": settings, "head": file_sha256(folder / HEAD), **spoken})
    return Policy(backbone, shape, preprocessor, codec, net, identity)


def _weights(folder: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(folder.glob("*.safetensors"))}
