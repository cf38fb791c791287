"""One interface for whatever ranks a pool by its features, and its use over a whole store."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from embodied_midtrain.features.store import FeatureStore, FeatureTable, Shard
from embodied_midtrain.progress import progress_bar

ROWS = 512
"""Rows whose float32 copy still lies in a processor's cache when it is multiplied."""


class Scorer(Protocol):
    """A fitted measure of proximity."""

    def scores(self, features: NDArray[np.float16] | NDArray[np.float32], /) -> NDArray[np.float32]:
        """Of each row [n, dim]: [n], higher is closer; NaN where a row holds a NaN."""
        ...


def score_store(scorer: Scorer, store: FeatureStore) -> NDArray[np.float32]:
    """Scores of every row of a store, in its order: [rows]. Memory: four bytes a row, and one block."""
    found = np.empty(store.rows, np.float32)
    at = 0
    with progress_bar("score", store.rows) as bar:
        for block in store.blocks():
            found[at : at + len(block)] = scorer.scores(block)
            at += len(block)
            bar.advance(len(block))
    return found


def linear(features: NDArray[np.float16] | NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """features @ weight in float32: [n]; half precision is converted in the cache, not in memory.

    NaN where a row holds NaN or infinity.
    """
    column = torch.from_numpy(np.ascontiguousarray(weight, np.float32))
    rows = as_tensor(features)
    found = torch.empty(len(rows))
    for at in range(0, len(rows), ROWS):
        torch.mv(rows[at : at + ROWS].float(), column, out=found[at : at + ROWS])
    return found.masked_fill_(~found.isfinite(), float("nan")).numpy()


def in_float32(features: NDArray[np.float16] | NDArray[np.float32], rows: int = ROWS) -> Iterator[torch.Tensor]:
    """The rows in float32, some at a time: [up to `rows`, dim]."""
    tensor = as_tensor(features)
    for at in range(0, len(tensor), rows):
        yield tensor[at : at + rows].float()


def as_tensor(features: NDArray[np.float16] | NDArray[np.float32]) -> torch.Tensor:
    """The same memory as a tensor; it is only read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(features)


def draw_rows(store: FeatureStore, count: int, seed: int) -> FeatureTable:
    """At most `count` finite rows of a store, drawn without replacement, in its order: what a measure is fitted to."""
    rng = np.random.default_rng(seed)
    chosen = np.arange(store.rows)
    if count < store.rows:
        chosen = np.sort(rng.choice(store.rows, count, replace=False))
    features = np.empty((len(chosen), store.dim), np.float32)
    sources: list[str] = []
    ids: list[str] = []
    first = at = 0
    for shard in store.shards:
        own = chosen[(chosen >= first) & (chosen < first + shard.rows)] - first
        if len(own):
            source, id = shard.keys()
            sources += source.take(own).to_pylist()
            ids += id.take(own).to_pylist()
            at += _copy(shard, own, features[at : at + len(own)])
        first += shard.rows
    finite = np.isfinite(features).all(axis=1)
    return FeatureTable(np.array(sources, np.str_)[finite], np.array(ids, np.str_)[finite], features[finite])


def take_rows(store: FeatureStore, rows: NDArray[np.integer]) -> NDArray[np.float16]:
    """Features of these rows, in their order: [len(rows), dim]."""
    order = np.argsort(rows, kind="stable")
    wanted = rows[order]
    found = np.empty((len(rows), store.dim), np.float16)
    first = at = 0
    for shard in store.shards:
        low, high = np.searchsorted(wanted, [first, first + shard.rows])
        if high > low:
            at += _copy(shard, wanted[low:high] - first, found[at : at + high - low])
        first += shard.rows
    back: NDArray[np.float16] = np.empty_like(found)
    back[order] = found
    return back


def _copy(shard: Shard, rows: NDArray[np.integer], into: NDArray[np.floating]) -> int:
    """Features of ascending rows of a shard into an array [len(rows), dim]; how many."""
    start = at = 0
    for block in shard.blocks():
        low, high = np.searchsorted(rows, [start, start + len(block)])
        into[at : at + high - low] = block[rows[low:high] - start]
        at, start = at + int(high - low), start + len(block)
    return at
