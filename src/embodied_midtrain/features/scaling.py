"""Standardisation of two sides that are to be told apart: each weighs half, however many rows it has."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

BLOCK = 4096
"""Rows whose float64 copy is held at once."""


def balanced_scale(
    first: NDArray[np.float32], second: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each dimension over both sides, [n, dim] and [m, dim].

    A floor is under every deviation: a constant dimension says nothing and must not blow up.
    """
    (mean_a, square_a), (mean_b, square_b) = _moments(first), _moments(second)
    mean = (mean_a + mean_b) / 2
    std = np.sqrt(np.maximum((square_a + square_b) / 2 - mean**2, 0.0))
    std = np.maximum(std, max(1e-3 * float(np.median(std)), 1e-8))
    return mean.astype(np.float32), std.astype(np.float32)


def _moments(rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and mean square of each dimension."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for block in torch.from_numpy(np.ascontiguousarray(rows)).split(BLOCK):
        wide = block.double()
        total += wide.sum(0)
        squares += wide.square_().sum(0)
    return (total / len(rows)).numpy(), (squares / len(rows)).numpy()
