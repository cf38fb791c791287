"""Squared maximum mean discrepancy with a Gaussian kernel (EmbodiedMidtrain, section 3; Gretton et al. 2012)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

BLOCK = 2048
"""Rows of one kernel block: what is held at once is BLOCK x BLOCK floats, however large the sets are."""


def squared_distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """||x_i - y_j||^2: [n, m], by one matrix product, never below zero."""
    norms = (x * x).sum(1, keepdim=True) + (y * y).sum(1)
    return torch.addmm(norms, x, y.T, alpha=-2.0).clamp_min_(0.0)


def median_bandwidth(features: NDArray[np.float32], *, limit: int = 2000, seed: int = 0) -> float:
    """The median heuristic: sigma = the median distance between different rows, over at most `limit` of them.

    Raises:
        ValueError: where there are fewer than two rows, or all rows are equal.
    """
    rng = np.random.default_rng(seed)
    chosen = features if len(features) <= limit else features[np.sort(rng.choice(len(features), limit, replace=False))]
    if len(chosen) < 2:
        raise ValueError("the median heuristic needs at least two features")
    x = torch.from_numpy(np.ascontiguousarray(chosen, dtype=np.float64))
    x = x - x.mean(0)
    upper = torch.triu_indices(len(x), len(x), offset=1)
    sigma = float(squared_distances(x, x)[upper[0], upper[1]].median().sqrt())
    if not sigma > 0:
        raise ValueError("all features are equal: no distance to measure a gap by. Is the backbone's output constant?")
    return sigma


def kernel_mean(
    x: NDArray[np.float32], y: NDArray[np.float32], sigma: float, *, same: bool = False, biased: bool = False
) -> float:
    """Mean of k(x, y) = exp(-||x - y||^2 / 2 sigma^2) over all pairs, computed block by block.

    Args:
        x, y: [n, dim] and [m, dim].
        same: x is y; then pairs of a row with itself are left out unless `biased`.
    """
    total = 0.0
    # Centring leaves distances as they are and keeps the matrix product from cancelling large norms.
    centre = x.mean(0, dtype=np.float64).astype(np.float32)
    tx, ty = torch.from_numpy(np.ascontiguousarray(x - centre)), torch.from_numpy(np.ascontiguousarray(y - centre))
    for block in tx.split(BLOCK):
        for other in ty.split(BLOCK):
            total += float((squared_distances(block, other) / (-2.0 * sigma * sigma)).exp_().sum(dtype=torch.float64))
    if same and not biased:
        return (total - len(x)) / (len(x) * (len(x) - 1))
    return total / (len(x) * len(y))


def squared_mmd(x: NDArray[np.float32], y: NDArray[np.float32], sigma: float, *, biased: bool = False) -> float:
    """E[k(x, x')] - 2 E[k(x, y)] + E[k(y, y')]; the unbiased form can be a little below zero.

    Raises:
        ValueError: where the unbiased form is asked for with fewer than two rows on a side.
    """
    if not biased and min(len(x), len(y)) < 2:
        raise ValueError("the unbiased MMD needs at least two rows on each side")
    within = kernel_mean(x, x, sigma, same=True, biased=biased) + kernel_mean(y, y, sigma, same=True, biased=biased)
    return within - 2.0 * kernel_mean(x, y, sigma)


def mmd_matrix(
    groups: Mapping[str, NDArray[np.float32]], sigma: float, *, biased: bool = False
) -> tuple[list[str], NDArray[np.float64]]:
    """Squared MMD between all pairs of groups: their names, and [groups, groups] with a zero diagonal."""
    names = list(groups)
    within = {n: kernel_mean(groups[n], groups[n], sigma, same=True, biased=biased) for n in names}
    matrix = np.zeros((len(names), len(names)))
    for i, first in enumerate(names):
        for j in range(i + 1, len(names)):
            across = kernel_mean(groups[first], groups[names[j]], sigma)
            matrix[i, j] = matrix[j, i] = within[first] + within[names[j]] - 2.0 * across
    return names, matrix
