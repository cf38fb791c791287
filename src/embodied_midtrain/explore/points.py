"""Which samples and frames stand on the map, and where: of the gap's own map, or laid out anew from features."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Artifact, StageError
from embodied_midtrain.features.matching import check_same_space
from embodied_midtrain.features.store import FeatureStore, open_features
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
    keys, rows = _drawn(near, limit - share, selected, seed)
    features = [_features(near, rows)]
    names: list[Key] = []
    if far is not None:
        names, rows = _drawn(far, share, (), seed)
        features.append(_features(far, rows))
    stacked = np.concatenate(features)
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(stacked).all(axis=1))
    usable: list[bool] = finite.tolist()
    kept = [key for key, fine in zip(keys, usable[: len(keys)], strict=True) if fine]
    shown = [key for key, fine in zip(names, usable[len(keys) :], strict=True) if fine]
    if len(kept) + len(shown) < 10:
        raise StageError(f"a map needs at least 10 points, there are {len(kept) + len(shown)}")
    return Points(kept, shown, map_2d(stacked[finite], seed=seed))


def draw(mine: NDArray[np.bool_], limit: int, seed: int) -> NDArray[np.int64]:
    """Places of at most `limit` rows in their order: as many of the marked ones as fit, then a draw of the others."""
    rng = np.random.default_rng(seed)
    first, rest = np.flatnonzero(mine), np.flatnonzero(~mine)
    if len(first) > limit:
        return np.sort(rng.choice(first, limit, replace=False))
    drawn = rng.choice(rest, min(len(rest), limit - len(first)), replace=False)
    return np.sort(np.concatenate([first, drawn]))


def _drawn(
    store: FeatureStore, limit: int, selected: Collection[Key], seed: int
) -> tuple[list[Key], NDArray[np.int64]]:
    """Keys and rows of what is drawn of a store."""
    mine = np.zeros(store.rows, np.bool_)
    at = 0
    if selected:
        for shard in store.shards:
            sources, ids = shard.keys()
            keys = zip(sources.to_pylist(), ids.to_pylist(), strict=True)
            mine[at : at + shard.rows] = [key in selected for key in keys]
            at += shard.rows
    rows = draw(mine, limit, seed)
    found: list[Key] = []
    at = 0
    for shard in store.shards:
        own = rows[(rows >= at) & (rows < at + shard.rows)] - at
        sources, ids = shard.keys()
        found += zip(sources.take(own).to_pylist(), ids.take(own).to_pylist(), strict=True)
        at += shard.rows
    return found, rows


def _features(store: FeatureStore, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Features of some rows, in order: float32 [len(rows), dim]."""
    parts = []
    at = 0
    for block in store.blocks():
        parts.append(block[rows[(rows >= at) & (rows < at + len(block))] - at].astype(np.float32))
        at += len(block)
    return np.concatenate(parts)
