"""uLSIF: the density ratio target / pool, fitted directly by least squares (Kanamori et al., 2009).

r(x) = sum over centres c of alpha_c exp(-||x - c||^2 / 2 sigma^2), alpha = (H + lambda I)^-1 h, where H is the mean of
the products of two kernels over the pool and h the mean of each over the target. Width and ridge are chosen by their
held-out loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from embodied_midtrain.proximity.scoring import in_float32

WIDTHS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Of the kernel, times the median distance."""
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
FOLDS = 5


@dataclass(frozen=True)
class Ratio:
    """A fitted ratio.

    Attributes:
        mean, std: of the features' standardisation: float32 [dim].
        centres: standardised: float64 [b, dim].
        alpha: float64 [b]; with wide kernels large values of both signs nearly cancel.
        width: sigma.
        ridge: lambda.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    centres: NDArray[np.float64]
    alpha: NDArray[np.float64]
    width: float
    ridge: float

    def scores(self, features: NDArray[np.float16] | NDArray[np.float32], /) -> NDArray[np.float32]:
        mean, std = torch.from_numpy(self.mean), torch.from_numpy(self.std)
        centres, alpha = torch.from_numpy(self.centres), torch.from_numpy(self.alpha)
        parts = [
            (_kernel(((rows - mean) / std).double(), centres, self.width) @ alpha).float()
            for rows in in_float32(features)
        ]
        joined: NDArray[np.float32] = torch.cat(parts).numpy() if parts else np.zeros(0, np.float32)
        return joined


def fit_ratio(
    pool: NDArray[np.float32], target: NDArray[np.float32], *, centres: int = 200, rows: int = 5000, seed: int = 0
) -> Ratio:
    """Fit on at most `rows` rows of each side, each [n, dim], with centres drawn from the target."""
    rng = np.random.default_rng(seed)
    a, b = (side[rng.permutation(len(side))[:rows]].astype(np.float64) for side in (pool, target))
    mean = (a.mean(0) + b.mean(0)) / 2
    std = np.sqrt((((a - mean) ** 2).mean(0) + ((b - mean) ** 2).mean(0)) / 2)
    std = np.maximum(std, max(1e-3 * float(np.median(std)), 1e-8))
    near, far = (torch.from_numpy((side - mean) / std) for side in (b, a))
    middle = torch.cat([near[: centres // 2], far[: centres // 2]])
    scale = float(torch.cdist(far[:1000], middle).median())
    order = [rng.permutation(len(side)) % FOLDS for side in (far, near)]
    parts = [torch.from_numpy(fold) for fold in order]
    found: list[tuple[float, float, float, float]] = []
    for factor in WIDTHS:
        on_pool, on_target = (_kernel(side, middle, factor * scale) for side in (far, near))
        for ridge in RIDGES:
            losses = torch.tensor([_held_out(on_pool, on_target, parts, fold, ridge) for fold in range(FOLDS)])
            found.append((float(losses.mean()), float(losses.std()) / FOLDS**0.5, factor, ridge))
    lowest, spread = min(found)[:2]
    # Of those that are as good as the best within its error the smoothest: the ranking far from the target, where
    # narrow kernels say nothing, is what a pool is ranked by.
    _, _, factor, ridge = max((row for row in found if row[0] <= lowest + spread), key=lambda row: (row[3], row[2]))
    width = factor * scale
    alpha = _solve(_kernel(far, middle, width), _kernel(near, middle, width), ridge)
    return Ratio(mean.astype(np.float32), std.astype(np.float32), middle.numpy(), alpha.numpy(), width, ridge)


def _kernel(rows: torch.Tensor, centres: torch.Tensor, width: float) -> torch.Tensor:
    return torch.exp(-(torch.cdist(rows, centres) ** 2) / (2 * width**2))


def _solve(on_pool: torch.Tensor, on_target: torch.Tensor, ridge: float) -> torch.Tensor:
    eye = torch.eye(on_pool.shape[1], dtype=on_pool.dtype)
    return torch.linalg.solve(on_pool.T @ on_pool / len(on_pool) + ridge * eye, on_target.mean(0))


def _held_out(
    on_pool: torch.Tensor, on_target: torch.Tensor, parts: list[torch.Tensor], fold: int, ridge: float
) -> float:
    """Mean of r(pool)^2 / 2 - r(target) over one fold, fitted to the others."""
    mine = [part == fold for part in parts]
    alpha = _solve(on_pool[~mine[0]], on_target[~mine[1]], ridge)
    return float(((on_pool[mine[0]] @ alpha) ** 2).mean() / 2 - (on_target[mine[1]] @ alpha).mean())
