"""Which samples and frames stand on the map, and where: of the gap's own map, or laid out anew from features."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Artifact, StageError
from embodied_midtrain.features.drawing import take_rows
from embodied_midtrain.features.matching import check_same_space
from embodied_midtrain.features.store import FeatureStore, FeatureTable, open_features
from embodied_midtrain.gap.map import map_2d

Key = tuple[str, str]


@dataclass(frozen=True)
class Points:
    """Points of pool and target.

    Attributes:
        pool: keys of samples, target: keys of robot frames; first all of the one, then all of the other.
        places: x and y, float32 [len(pool) + len(target), 2].
    """

    pool: list[Key]
    target: list[Key]
    places: NDArray[np.float32]


def mapped(gap: Artifact, limit: int, selected: Collection[Key], seed: int) -> Points:
    """The points of an `emt gap` map, drawn down to `limit`."""
    table = pq.read_table(gap.file("map.parquet")).to_pydict()
    keys = list(zip(table["source"], table["id"], strict=True))
    places = np.stack([table["x"], table["y"]], axis=1).astype(np.float32)
    pool = np.array([n for n, kind in enumerate(table["kind"]) if kind == "pool"], np.int64)
    target = np.array([n for n, kind in enumerate(table["kind"]) if kind != "pool"], np.int64)
    mine = np.array([keys[n] in selected for n in pool.tolist()], np.bool_)
    a, b = pool[draw(mine, limit - len(target[: limit // 3]), seed)], target[: limit // 3]
    return Points([keys[n] for n in a], [keys[n] for n in b], places[np.concatenate([a, b])])


def laid_out(pool: Artifact, target: Artifact | None, limit: int, selected: Collection[Key], seed: int) -> Points:
    """A map of its own: every selected sample that fits, and a draw of the others.

    Memory is what is drawn, not the pool.

    Raises:
        StageError: where the features cannot be compared.
    """
    if target is not None:
        check_same_space(pool, target)
    far = open_features(target) if target is not None else None
    share = min(far.rows, limit // 3) if far is not None else 0
    near = open_features(pool)
    sides = [_drawn(near, limit - share, selected, seed)]
    if far is not None:
        sides.append(_drawn(far, share, (), seed))
    sides = [side.at(np.isfinite(side.features).all(axis=1)) for side in sides]
    if sum(map(len, sides)) < 10:
        raise StageError(f"a map needs at least 10 points, there are {sum(map(len, sides))}")
    kept, *shown = ([*zip(side.sources.tolist(), side.ids.tolist(), strict=True)] for side in sides)
    places = map_2d(np.concatenate([side.features for side in sides]), seed=seed)
    return Points(kept, shown[0] if shown else [], places)


def draw(mine: NDArray[np.bool_], limit: int, seed: int) -> NDArray[np.int64]:
    """Places of at most `limit` rows in their order: as many of the marked ones as fit, then a draw of the others."""
    rng = np.random.default_rng(seed)
    first, rest = np.flatnonzero(mine), np.flatnonzero(~mine)
    if len(first) > limit:
        return np.sort(rng.choice(first, limit, replace=False))
    drawn = rng.choice(rest, min(len(rest), limit - len(first)), replace=False)
    return np.sort(np.concatenate([first, drawn]))


def _drawn(store: FeatureStore, limit: int, selected: Collection[Key], seed: int) -> FeatureTable:
    """What is drawn of a store."""
    mine = np.zeros(store.rows, np.bool_)
    at = 0
    if selected:
        for shard in store.shards:
            sources, ids = shard.keys()
            keys = zip(sources.to_pylist(), ids.to_pylist(), strict=True)
            mine[at : at + shard.rows] = [key in selected for key in keys]
            at += shard.rows
    return take_rows(store, draw(mine, limit, seed))
