"""Rows of a feature store that are drawn, not all of them: what a measure is fitted to or computed on.

One pass over the store; memory is two bytes for each row that there is, and the rows that are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.features.store import FeatureStore, FeatureTable

BLOCK = 1 << 20
"""Rows whose sources are looked at together."""


def source_codes(store: FeatureStore) -> tuple[list[str], NDArray[np.uint16]]:
    """The sources in alphabetical order, and the number of each row's: [rows].

    Raises:
        StageError: on more sources than can be numbered.
    """
    seen: dict[str, int] = {}
    parts = []
    for shard in store.shards:
        encoded = shard.keys()[0].dictionary_encode()
        own = np.array([seen.setdefault(name, len(seen)) for name in encoded.dictionary.to_pylist()], np.int64)
        parts.append(own[encoded.indices.to_numpy()])
    if len(seen) > np.iinfo(np.uint16).max:
        raise StageError(f"the pool has {len(seen)} sources; at most {np.iinfo(np.uint16).max} are told apart.")
    names = sorted(seen)
    place = np.empty(len(seen), np.uint16)
    for new, name in enumerate(names):
        place[seen[name]] = new
    return names, place[np.concatenate(parts)]


def draw_places(places: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """At most `count` of these, drawn without replacement, in rising order."""
    if len(places) <= count:
        return np.sort(places)
    return np.sort(np.random.default_rng(seed).choice(places, count, replace=False))


def draw_of(codes: NDArray[np.uint16], sources: Sequence[int], count: int, seed: int) -> NDArray[np.int64]:
    """Places of at most `count` rows of these sources, drawn without replacement, in rising order.

    Memory is that of the draw, however many rows the sources have.
    """
    member = np.zeros(np.iinfo(np.uint16).max + 1, bool)
    member[list(sources)] = True
    blocks = range(0, len(codes), BLOCK)
    total = sum(int(member[codes[at : at + BLOCK]].sum()) for at in blocks)
    if total <= count:
        chosen = np.arange(total)
    else:
        chosen = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
    found, seen = [np.zeros(0, np.int64)], 0
    for at in blocks:
        own = np.flatnonzero(member[codes[at : at + BLOCK]])
        low, high = np.searchsorted(chosen, [seen, seen + len(own)])
        found.append(at + own[chosen[low:high] - seen])
        seen += len(own)
    return np.concatenate(found)


def draw_rows(store: FeatureStore, count: int, seed: int) -> FeatureTable:
    """At most `count` finite rows of a store, drawn without replacement, in its order."""
    if count < store.rows:
        chosen = np.sort(np.random.default_rng(seed).choice(store.rows, count, replace=False))
    else:
        chosen = np.arange(store.rows)
    table = take_rows(store, chosen)
    return table.at(np.isfinite(table.features).all(axis=1))


def take_rows(store: FeatureStore, places: NDArray[np.int64]) -> FeatureTable:
    """The rows at these places, which rise; such as are not finite are taken too."""
    features = np.empty((len(places), store.dim), np.float32)
    sources: list[str] = []
    ids: list[str] = []
    first = at = 0
    for shard in store.shards:
        own = places[(places >= first) & (places < first + shard.rows)] - first
        if len(own):
            source, id = shard.keys()
            sources += source.take(own).to_pylist()
            ids += id.take(own).to_pylist()
            start = 0
            for block in shard.blocks():
                here = own[(own >= start) & (own < start + len(block))] - start
                features[at : at + len(here)] = block[here]
                at, start = at + len(here), start + len(block)
        first += shard.rows
    return FeatureTable(np.array(sources, np.str_), np.array(ids, np.str_), features)
