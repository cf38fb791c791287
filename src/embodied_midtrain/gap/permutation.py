"""Is a gap more than chance? A permutation test of the squared MMD (Gretton et al. 2012, section 5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from embodied_midtrain.gap.mmd import kernel_matrix

ASSUMES = (
    "The rows of a side are independent draws. Frames of one episode are nearly copies, so one frame of each episode "
    "is taken, drawn at random: the test asks whether pool samples and single frames of different episodes follow one "
    "law. Several questions about one picture are not independent either; where a source has many, p is too small."
)
"""What the p-values rest on, for readers of mmd.json."""
AT_ONCE = 256
"""Permutations in one matrix product."""


@dataclass(frozen=True)
class Permuted:
    """A permutation test.

    Attributes:
        mmd: squared MMD of the rows tested, unbiased.
        p: (1 + permutations that reach it) / (1 + permutations).
        rows: tested of each side.
    """

    mmd: float
    p: float
    rows: tuple[int, int]


def permutation_test(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    sigma: float,
    *,
    permutations: int,
    seed: int,
    device: str = "auto",
) -> Permuted:
    """Test x [n, dim] against y [m, dim].

    The kernel matrix of all n + m rows is computed once and held (8 bytes (n + m)^2); a permutation then is two sums
    over it, by one matrix product for many permutations together.

    Raises:
        ValueError: on fewer than two rows on a side.
    """
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError("a permutation test needs at least two rows on each side")
    kernel = kernel_matrix(np.concatenate([x, y]), sigma, device=device).fill_diagonal_(0.0)
    towards = kernel.sum(1)
    total = towards.sum()

    def statistic(first: torch.Tensor) -> torch.Tensor:
        """Unbiased squared MMD where the rows marked 1 are x: [k, n + m] -> [k]."""
        within = ((first @ kernel) * first).sum(1)
        across = first @ towards - within
        rest = total - within - 2.0 * across
        return within / (n * (n - 1)) + rest / (m * (m - 1)) - 2.0 * across / (n * m)

    given = torch.zeros(1, n + m, dtype=torch.float64, device=kernel.device)
    given[0, :n] = 1.0
    observed = statistic(given)
    rng = np.random.default_rng(seed)
    # Equal sums in another order of addition count as equal.
    limit = float(observed) - 1e-12
    reached = 0
    for at in range(0, permutations, AT_ONCE):
        drawn = np.zeros((min(AT_ONCE, permutations - at), n + m))
        for row in drawn:
            row[rng.permutation(n + m)[:n]] = 1.0
        reached += int((statistic(torch.from_numpy(drawn).to(kernel.device)) >= limit).sum())
    return Permuted(float(observed), (1 + reached) / (1 + permutations), (n, m))
