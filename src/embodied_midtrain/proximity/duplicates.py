"""Near-duplicates in feature space: of samples that nearly coincide only the best scored stays.

(SemDeDup, Abbas et al., 2023, arXiv 2303.09540: clusters by k-means on unit features, then all pairs within a cluster.
There the sample farthest from the cluster's middle stays; here the one that the selection wants most.)
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

EXACT = 20_000
"""Rows up to which all pairs are compared, without clusters."""
BLOCK = 2048


@dataclass(frozen=True)
class Duplicates:
    """What is too near to something better.

    Attributes:
        rows: numbers of the rows that go [m], ascending.
        of: for each the row it is nearest to among the better ones [m].
        similarity: cosine of the two: float32 [m].
    """

    rows: NDArray[np.int64]
    of: NDArray[np.int64]
    similarity: NDArray[np.float32]


def near_duplicates(
    features: NDArray[np.float16] | NDArray[np.float32], threshold: float, *, seed: int = 0, exact: int = EXACT
) -> Duplicates:
    """Rows that have a better row with a cosine above `threshold`.

    Args:
        features: [n, dim], the best scored first.
        exact: from how many rows on only rows of one cluster are compared.

    Raises:
        ValueError: on a threshold that is no cosine above 0.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the similarity of near-duplicates is {threshold}; give a cosine above 0, at most 1")
    unit = np.asarray(features, np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    groups = [np.arange(len(unit))] if len(unit) <= exact else _clusters(unit, max(2, len(unit) // (exact // 4)), seed)
    rows, of, similarity = [], [], []
    for group in groups:
        own = torch.from_numpy(unit[group])
        best, nearest = _best_before(own)
        near = (best > threshold).nonzero()[:, 0].numpy()
        rows.append(group[near])
        of.append(group[nearest.numpy()[near]])
        similarity.append(best.numpy()[near])
    order = np.argsort(np.concatenate(rows), kind="stable")
    return Duplicates(np.concatenate(rows)[order], np.concatenate(of)[order], np.concatenate(similarity)[order])


def _best_before(unit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each row the highest cosine to a row before it, and that row's number; -1 and 0 for the first."""
    best = torch.full((len(unit),), -1.0)
    nearest = torch.zeros(len(unit), dtype=torch.long)
    for start in range(0, len(unit), BLOCK):
        mine = unit[start : start + BLOCK]
        for other in range(0, start + 1, BLOCK):
            cosines = mine @ unit[other : other + BLOCK].T
            if other == start:
                cosines.masked_fill_(torch.ones_like(cosines, dtype=torch.bool).triu(), -1.0)
            value, place = cosines.max(1)
            better = value > best[start : start + BLOCK]
            best[start : start + BLOCK][better] = value[better]
            nearest[start : start + BLOCK][better] = place[better] + other
    return best, nearest


def _clusters(unit: NDArray[np.float32], count: int, seed: int, rounds: int = 10) -> list[NDArray[np.int64]]:
    """Rows of each cluster, ascending: spherical k-means, begun at rows drawn with the seed."""
    rows = torch.from_numpy(unit)
    rng = np.random.default_rng(seed)
    centres = rows[torch.from_numpy(np.sort(rng.choice(len(unit), count, replace=False)))]
    owner = torch.zeros(len(unit), dtype=torch.long)
    for _ in range(rounds):
        owner = torch.cat([(block @ centres.T).argmax(1) for block in rows.split(BLOCK)])
        sums = torch.zeros_like(centres).index_add_(0, owner, rows)
        # A cluster that has lost all rows keeps its centre.
        full = torch.bincount(owner, minlength=count) > 0
        centres = torch.where(full[:, None], torch.nn.functional.normalize(sums, dim=1), centres)
    order = np.argsort(owner.numpy(), kind="stable")
    edges = np.searchsorted(owner.numpy()[order], np.arange(count + 1))
    return [order[a:b] for a, b in itertools.pairwise(edges.tolist()) if b > a]
