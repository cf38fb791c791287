"""A selection as what is trained on: usable samples, drawn to a budget, and what that made of each source."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embodied_midtrain.artifacts import PARTS, Skips, StageError, StageRun
from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.samples import BadSample, Sample
from embodied_midtrain.training.order import bucketed, draws

Key = tuple[str, str]
Fetch = Callable[[Sequence[Key]], Iterator[Sample]]
"""Samples of the pool by key, in that order."""
FOLDER = f"{PARTS}/rows"


@dataclass(frozen=True)
class Mixture:
    """What is trained on.

    Attributes:
        wanted: the selection's keys.
        keys: the usable samples among them.
        lengths: tokens of each usable sample.
        steps: the samples of each step, as numbers of `keys` [steps, batch].
        kept: the rows of usable samples on disk, with the frozen vision tower's output; None: they are rendered anew.
    """

    wanted: Sequence[Key]
    keys: Sequence[Key]
    lengths: NDArray[np.int64]
    steps: NDArray[np.int64]
    kept: KeptRows | None

    def composition(self) -> dict[str, dict[str, float | int]]:
        """By source: share of the selection (target) and of the draws (realised), samples, draws, repeats."""
        target = Counter(source for source, _ in self.wanted)
        usable = Counter(source for source, _ in self.keys)
        drawn = np.bincount(self.steps.ravel(), minlength=len(self.keys))
        draws_of, repeats_of = Counter[str](), Counter[str]()
        for (source, _), times in zip(self.keys, drawn.tolist(), strict=True):
            draws_of[source] += times
            repeats_of[source] += max(0, times - 1)
        return {
            source: {
                "target": round(count / len(self.wanted), 6),
                "realised": round(draws_of[source] / self.steps.size, 6),
                "selected": count,
                "usable": usable[source],
                "drawn": draws_of[source],
                "repeated": repeats_of[source],
            }
            for source, count in sorted(target.items())
        }


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


def prepare(
    run: StageRun,
    wanted: Sequence[Key],
    fetch: Fetch,
    backbone: Backbone,
    *,
    steps: int,
    batch: int,
    seed: int,
    keep_vision: bool,
    part_size: int = 64,
) -> Mixture:
    """Render what the budget needs, part by part; what cannot be used is skipped and replaced while there is more.

    Where the budget (steps x batch) is smaller than the selection, a random part of it is used, so that the
    selection's composition stays; where it is larger, samples come again, whole epochs at a time.

    Raises:
        StageError: where no sample is usable.
    """
    budget = steps * batch
    order = draws(len(wanted), len(wanted), seed).tolist() if budget < len(wanted) else list(range(len(wanted)))
    keys: list[Key] = []
    lengths: list[int] = []
    parts: list[str] = []
    fresh: Iterator[Sample] | None = None
    with progress_bar("render samples", min(budget, len(wanted))) as bar:
        for number, chosen in enumerate(_parts(order, part_size)):
            name = f"rows-{number:05d}"
            facts = run.part(name)
            if facts is None:
                # One stream from here on: opening the pool anew for each part would index it again.
                fresh = fresh or fetch([wanted[i] for i in order[number * part_size :]])
                facts = _commit(run, name, itertools.islice(fresh, len(chosen)), backbone, keep_vision)
            keys += [(source, id) for source, id in facts["keys"]]
            lengths += facts["lengths"]
            parts += [name] if facts["keys"] else []
            bar.advance(len(chosen))
            if len(keys) >= min(budget, len(wanted)):
                break
    if not keys:
        raise StageError("no sample of the selection can be used: see the reasons in the pool's own listing of skips")
    keys, lengths = keys[:budget], lengths[:budget]
    sizes = np.asarray(lengths, np.int64)
    plan = bucketed(sizes, draws(len(keys), budget, seed), batch, seed)
    return Mixture(wanted, keys, sizes, plan, KeptRows(run.out / FOLDER, parts) if keep_vision else None)


def _parts(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for at in range(0, len(order), size):
        yield order[at : at + size]


def _commit(
    run: StageRun, name: str, samples: Iterator[Sample], backbone: Backbone, keep_vision: bool
) -> dict[str, Any]:
    skips = Skips()
    rows: list[tuple[Key, Rendered]] = []
    for sample in samples:
        try:
            row = backbone.render(sample)
            if not any(row.learnt[1:]):
                raise BadSample("empty text", "nothing to learn")
            rows.append((sample.key, row))
        except BadSample as error:
            skips.add(error.reason, "/".join(sample.key), error.detail)
    writers: dict[str, Callable[[Path], None]] = {}
    if keep_vision and rows:
        arrays = _arrays(backbone, [row for _, row in rows])
        writers = {f"{FOLDER}/{name}-{kind}.npy": _writer(array) for kind, array in arrays.items()}
    facts = {"keys": [list(key) for key, _ in rows], "lengths": [len(row) for _, row in rows]}
    return run.commit_part(name, facts, writers, skips)


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
