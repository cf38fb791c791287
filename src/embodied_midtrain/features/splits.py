"""Splits of robot features by whole episodes: frames of one episode are nearly copies of each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.features.store import FeatureTable


def episodes_of(table: FeatureTable) -> NDArray[np.str_]:
    """The episode of each row of a target: "task/episode" [n]; ids are "episode/frame"."""
    return np.array([f"{s}/{i.rsplit('/', 1)[0]}" for s, i in zip(table.sources, table.ids, strict=True)], np.str_)


def held_out_episodes(target: FeatureTable, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """True for the rows of a share of the episodes [n]."""
    episodes = episodes_of(target)
    names = np.unique(episodes)
    if len(names) < 2:
        # One episode only: rows are all there is to split by.
        chosen = np.zeros(len(target), dtype=bool)
        chosen[rng.permutation(len(target))[: max(1, round(share * len(target)))]] = True
        return chosen
    held = rng.permutation(names)[: max(1, round(share * len(names)))]
    return np.isin(episodes, held)


def folds(
    groups: NDArray[np.str_], count: int, rng: np.random.Generator, *, strata: NDArray[np.str_] | None = None
) -> NDArray[np.int64]:
    """Number of the fold of each row [n], rows of one group in one fold, folds of nearly as many groups each.

    Where there are fewer groups than folds, rows are dealt out one by one.

    Args:
        strata: of each row, the same for a group's [n]; their groups are spread over the folds one stratum at a time.
    """
    names, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    if len(names) < count:
        names, first, inverse = np.arange(len(groups)).astype(str), np.arange(len(groups)), np.arange(len(groups))
    order = rng.permutation(len(names))
    if strata is not None:
        order = order[np.argsort(strata[first][order], kind="stable")]
    dealt = np.empty(len(names), np.int64)
    dealt[order] = np.arange(len(names)) % count
    return dealt[inverse]


def one_of_each(groups: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Places of one row of each group, drawn at random, in rising order."""
    order = rng.permutation(len(groups))
    _, first = np.unique(groups[order], return_index=True)
    return np.sort(order[first])
