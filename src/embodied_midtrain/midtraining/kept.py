"""Rows of usable samples on disk, where the vision tower is frozen and its output therefore computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embodied_midtrain.artifacts import PARTS
from embodied_midtrain.backbones.backbone import Backbone, Rendered

FOLDER = f"{PARTS}/rows"


class KeptRows:
    """Rows on disk, memory-mapped: tokens, what is learnt, and vision features (float16)."""

    def __init__(self, folder: Path, parts: Sequence[str]) -> None:
        def load(name: str, part: str, mapped: bool = False) -> NDArray[Any]:
            return np.load(folder / f"{part}-{name}.npy", mmap_mode="r" if mapped else None)

        self._ids = [load("ids", part) for part in parts]
        self._learnt = [load("learnt", part) for part in parts]
        self._vision = [load("vision", part, mapped=True) for part in parts]
        self._place: list[tuple[int, int, int, int, int]] = []
        for number, part in enumerate(parts):
            tokens, pictures = 0, 0
            for length, count in load("sizes", part).tolist():
                self._place.append((number, tokens, tokens + length, pictures, pictures + count))
                tokens, pictures = tokens + length, pictures + count

    def row(self, index: int) -> Rendered:
        part, a, b, first, last = self._place[index]
        pixels = {"vision": torch.from_numpy(self._vision[part][first:last].astype(np.float32))}
        return Rendered(self._ids[part][a:b].tolist(), self._learnt[part][a:b].tolist(), pixels if last > first else {})


def writers(name: str, backbone: Backbone, rows: Sequence[Rendered]) -> dict[str, Callable[[Path], None]]:
    """What writes a part's rows, by file."""
    arrays = _arrays(backbone, rows)
    return {f"{FOLDER}/{name}-{kind}.npy": _writer(array) for kind, array in arrays.items()}


def _arrays(backbone: Backbone, rows: Sequence[Rendered], batch: int = 16) -> dict[str, NDArray[Any]]:
    pictures = [len(next(iter(row.pixels.values()))) if row.pixels else 0 for row in rows]
    seen = []
    with_pictures = [row for row in rows if row.pixels]
    for at in range(0, len(with_pictures), batch):
        part = with_pictures[at : at + batch]
        pixels = {k: v for k, v in backbone.collate(part).items() if k in part[0].pixels}
        seen.append(backbone.vision(pixels).half().cpu().numpy())
    return {
        "ids": np.concatenate([np.asarray(row.ids, np.int32) for row in rows]),
        "learnt": np.concatenate([np.asarray(row.learnt, np.bool_) for row in rows]),
        "sizes": np.stack([(len(row), count) for row, count in zip(rows, pictures, strict=True)]),
        "vision": np.concatenate(seen) if seen else np.zeros((0, 0, 0), np.float16),
    }


def _writer(array: NDArray[Any]) -> Callable[[Path], None]:
    return lambda path: np.save(path, array)
