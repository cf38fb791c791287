"""Squared maximum mean discrepancy with a Gaussian kernel (EmbodiedMidtrain, section 3; Gretton et al. 2012).

With rows centred and divided by sigma, -||x - y||^2 / 2 sigma^2 is x . y - |x|^2 / 2 - |y|^2 / 2: two more columns on
each side make it one matrix product, and the exponential is taken in place while the block lies in the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from embodied_midtrain.training.loop import pick_device

BLOCK = 1024
"""Rows of one kernel block."""
COLUMNS = 8192
"""Columns of one: what is held at once is BLOCK x COLUMNS floats, however large the sets are."""


@dataclass(frozen=True)
class Discrepancies:
    """Squared MMD between all pairs of groups, each [groups, groups] with a zero diagonal.

    Attributes:
        names: of the groups.
        unbiased: over different rows; a little below zero where two groups have one law.
        biased: a row's similarity to itself counts too; never below zero.
    """

    names: list[str]
    unbiased: NDArray[np.float64]
    biased: NDArray[np.float64]


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
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    sigma: float,
    *,
    same: bool = False,
    biased: bool = False,
    device: str = "auto",
) -> float:
    """Mean of k(x, y) = exp(-||x - y||^2 / 2 sigma^2) over all pairs, computed block by block.

    Args:
        x, y: [n, dim] and [m, dim].
        same: x is y; then pairs of a row with itself are left out unless `biased`.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
    """
    on, centre = pick_device(device), _centre([x])
    left = _widened(x, centre, sigma, on)
    if same:
        return _mean_within(_sum_within(left), len(x), biased)
    return _sum_across(left, _widened(y, centre, sigma, on)) / (len(x) * len(y))


def squared_mmd(
    x: NDArray[np.float32], y: NDArray[np.float32], sigma: float, *, biased: bool = False, device: str = "auto"
) -> float:
    """E[k(x, x')] - 2 E[k(x, y)] + E[k(y, y')]; the unbiased form can be a little below zero.

    Raises:
        ValueError: where the unbiased form is asked for with fewer than two rows on a side.
    """
    if not biased and min(len(x), len(y)) < 2:
        raise ValueError("the unbiased MMD needs at least two rows on each side")
    found = mmd_matrix({"x": x, "y": y}, sigma, device=device)
    return float((found.biased if biased else found.unbiased)[0, 1])


def mmd_matrix(groups: Mapping[str, NDArray[np.float32]], sigma: float, *, device: str = "auto") -> Discrepancies:
    """Squared MMD between all pairs of groups, unbiased (NaN for a group of one row) and biased.

    Args:
        groups: [n, dim] each; their float32 copies are held together.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
    """
    names, on = list(groups), pick_device(device)
    centre = _centre(list(groups.values()))
    ready = [_widened(groups[name], centre, sigma, on) for name in names]
    sums = [_sum_within(rows) for rows in ready]
    within = {b: [_mean_within(s, len(r), b) for s, r in zip(sums, ready, strict=True)] for b in (False, True)}
    unbiased, biased = np.zeros((2, len(names), len(names)))
    for j in range(len(names)):
        for i in range(j):
            across = _sum_across(ready[i], ready[j]) / (len(ready[i]) * len(ready[j]))
            for matrix, own in ((unbiased, within[False]), (biased, within[True])):
                matrix[i, j] = matrix[j, i] = own[i] + own[j] - 2.0 * across
    return Discrepancies(names, unbiased, biased)


def kernel_matrix(rows: NDArray[np.float32], sigma: float, *, device: str = "auto") -> torch.Tensor:
    """k between all pairs of rows: float64 [n, n], ones on the diagonal."""
    wide = _widened(rows, _centre([rows]), sigma, pick_device(device)).double()
    return (wide @ _other(wide).T).clamp_max_(0.0).exp_().fill_diagonal_(1.0)


def _centre(groups: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The mean of all rows: distances stay as they are, and the products do not cancel large norms."""
    total = sum(rows.sum(0, dtype=np.float64) for rows in groups)
    return np.asarray(total / sum(map(len, groups)), np.float32)


def _widened(
    rows: NDArray[np.float32], centre: NDArray[np.float32], sigma: float, device: torch.device
) -> torch.Tensor:
    """[n, dim + 2]: the rows in units of sigma, -|x|^2 / 2, and 1."""
    out = torch.empty(len(rows), rows.shape[1] + 2)
    scaled = out[:, :-2]
    torch.sub(torch.from_numpy(np.ascontiguousarray(rows, np.float32)), torch.from_numpy(centre), out=scaled)
    scaled /= sigma
    out[:, -2] = scaled.double().square().sum(1) / -2.0
    out[:, -1] = 1.0
    return out.to(device)


def _other(wide: torch.Tensor) -> torch.Tensor:
    """The last two columns in turn: what a product's other side needs."""
    return torch.cat([wide[:, :-2], wide[:, -1:], wide[:, -2:-1]], 1)


def _exponentials(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (left @ right.T).clamp_max_(0.0).exp_()


def _sum(block: torch.Tensor) -> torch.Tensor:
    # Rows in single precision, in vectors; their sums in double: neither is the slow part then.
    return block.sum(1).sum(dtype=torch.float64)


def _sum_across(left: torch.Tensor, right: torch.Tensor) -> float:
    total = torch.zeros((), dtype=torch.float64, device=left.device)
    other = _other(right)
    for columns in other.split(COLUMNS):
        for rows in left.split(BLOCK):
            total += _sum(_exponentials(rows, columns))
    return float(total)


def _sum_within(rows: torch.Tensor) -> float:
    """Over all pairs of different rows; each block above the diagonal counts for the one below it too."""
    total = torch.zeros((), dtype=torch.float64, device=rows.device)
    other = _other(rows)
    for at in range(0, len(rows), BLOCK):
        block, end = rows[at : at + BLOCK], min(at + BLOCK, len(rows))
        square = _exponentials(block, other[at:end]).fill_diagonal_(0.0)
        total += _sum(square)
        for columns in other[end:].split(COLUMNS):
            total += 2.0 * _sum(_exponentials(block, columns))
    return float(total)


def _mean_within(total: float, count: int, biased: bool) -> float:
    if biased:
        return (total + count) / (count * count)
    return total / (count * (count - 1)) if count > 1 else float("nan")
