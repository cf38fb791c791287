"""Two tables over one pool, each in the pool's order and each with samples left out, side by side without an index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.features.store import FeatureStore

Names = tuple[list[str], list[str]]
"""Sources and ids of some rows."""
AHEAD = 1_000_000
"""Rows that are read ahead at most to find a sample: memory does not grow with the pool."""


def names_of(store: FeatureStore) -> Iterator[Names]:
    """Sources and ids of a store, shard by shard."""
    for shard in store.shards:
        source, id = shard.keys()
        yield source.to_pylist(), id.to_pylist()


def in_order(
    parts: Iterator[tuple[list[str], list[str], NDArray[np.floating]]], blocks: Iterable[Names], *, ahead: int = AHEAD
) -> Iterator[NDArray[np.float64]]:
    """The values of `parts` for the rows of `blocks`: [n, width] each; NaN where a sample has none.

    Args:
        parts: sources, ids and values [n, width].
    """
    waiting: dict[tuple[str, str], NDArray[np.floating]] = {}
    ended = False
    width = 1
    for sources, ids in blocks:
        block = list(zip(sources, ids, strict=True))
        rows: list[NDArray[np.floating] | None] = []
        for key in block:
            while key not in waiting and not ended and len(waiting) < ahead:
                part = next(parts, None)
                ended = part is None
                if part is not None:
                    width = part[2].shape[1]
                    waiting.update(zip(zip(part[0], part[1], strict=True), part[2], strict=True))
            rows.append(waiting.get(key))
            if key in waiting:
                # What came before it will not be asked for any more.
                while (first := next(iter(waiting))) != key:
                    del waiting[first]
        found = np.full((len(block), width), np.nan)
        for number, row in enumerate(rows):
            if row is not None:
                found[number] = row
        yield found
