"""From scores to ranks, percentiles and the facts that tell whether a ranking makes sense."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def percentiles(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Percentile of each score among all, 0 to 100; equal scores share their mean percentile."""
    if len(scores) < 2:
        return np.full(len(scores), 50.0)
    return mean_ranks(scores) / (len(scores) - 1) * 100.0


def mean_ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rank of each value from 0, the mean rank where values are equal."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    return ((2 * last - counts + 1) / 2)[inverse]


def spearman(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Rank correlation; NaN where a side is constant."""
    a, b = mean_ranks(first), mean_ranks(second)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else float("nan")


def by_source(
    names: list[str], codes: NDArray[np.uint16], ranks: NDArray[np.integer], usable: int
) -> dict[str, dict[str, Any]]:
    """Per source: n, and quartiles of the percentile (100 is closest) that its samples have in the whole pool.

    Args:
        codes: number of each row's source [n].
        ranks: of each row, from 0 for the closest; those from `usable` on have no score.
    """
    order = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[order], np.arange(len(names) + 1))
    facts = {}
    for n, name in enumerate(names):
        own = ranks[order[edges[n] : edges[n + 1]]]
        own = own[own < usable]
        if len(own):
            percentile = 100.0 * (1.0 - own / max(1, usable - 1))
            low, middle, high = np.percentile(percentile, [25, 50, 75]).tolist()
            facts[name] = {"n": len(own), "median": middle, "quartiles": [low, high]}
    return facts


def variance_between(sources: NDArray[np.str_], scores: NDArray[np.float32]) -> float:
    """Share of the variance of ranks that the source alone explains (eta squared); NaN where all are equal."""
    ranks = mean_ranks(scores)
    total = float(((ranks - ranks.mean()) ** 2).sum())
    between = sum(
        float((sources == name).sum()) * (float(ranks[sources == name].mean()) - float(ranks.mean())) ** 2
        for name in np.unique(sources)
    )
    return between / total if total > 0 else float("nan")


def agreement_within(
    sources: NDArray[np.str_], first: NDArray[np.float32], second: NDArray[np.float32]
) -> dict[str, float]:
    """Rank correlation of two rankings inside each source that has at least ten samples."""
    return {
        name: spearman(first[sources == name], second[sources == name])
        for name in sorted(set(sources.tolist()))
        if int((sources == name).sum()) >= 10
    }
