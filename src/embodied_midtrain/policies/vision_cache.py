"""The frozen vision tower's output kept between runs: variants that share a tower need it only once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embodied_midtrain.artifacts import atomic_path
from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.policies.encoder import see
from embodied_midtrain.policies.preprocess import Preprocessor


class VisionCache:
    """`see` for whole episodes, remembered in a folder by content: frames, tower weights, preprocessing.

    Args:
        folder: where to keep it; None: nothing is kept.
    """

    def __init__(self, folder: Path | None, backbone: Backbone, preprocessor: Preprocessor, batch: int = 32) -> None:
        self.folder = folder
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.batch = batch
        self._tower = _identity(backbone, preprocessor) if folder is not None else ""

    def __call__(self, frames: NDArray[np.uint8], instruction: str) -> tuple[list[Rendered], Tensor | None]:
        """Frames [n, h, w, 3] of one episode -> their rows, and their `see` [n, tiles, tokens, dv].

        The latter is None for backbones whose vision output cannot stand in for the pixels; where it is not, the
        rows' own pixels are not to be used.
        """
        if not self.backbone.caches_vision:
            return self.preprocessor.render(self.backbone, frames, [instruction] * len(frames)), None
        # Only pictures differ within an episode, so the tokens of the first row are those of all.
        row = self.preprocessor.render(self.backbone, frames[:1], [instruction])[0]
        if self.folder is None:
            return [row] * len(frames), self._see(frames, instruction)
        digest = hashlib.sha256(self._tower.encode() + repr(frames.shape).encode() + frames.tobytes()).hexdigest()
        path = self.folder / digest[:2] / f"{digest[:32]}.npy"
        if path.is_file():
            return [row] * len(frames), torch.from_numpy(np.load(path))
        seen = self._see(frames, instruction)
        with atomic_path(path) as temporary:
            np.save(temporary, seen.numpy())
        return [row] * len(frames), seen

    def _see(self, frames: NDArray[np.uint8], instruction: str) -> Tensor:
        parts = []
        for at in range(0, len(frames), self.batch):
            part = frames[at : at + self.batch]
            parts.append(see(self.backbone, self.preprocessor.render(self.backbone, part, [instruction] * len(part))))
        return torch.cat(parts).cpu()


def _identity(backbone: Backbone, preprocessor: Preprocessor) -> str:
    digest = hashlib.sha256(repr(preprocessor.image).encode())
    image_processor = backbone.processor.image_processor
    digest.update(json.dumps(image_processor.to_dict(), sort_keys=True, default=str).encode())
    for name, tensor in sorted(backbone.tower.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
