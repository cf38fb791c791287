"""Distances in feature space (EmbodiedMidtrain, table 2: the mean one), as scores: less distance is closer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from embodied_midtrain.proximity.scoring import as_tensor, in_float32


@dataclass(frozen=True)
class MeanDistance:
    """-d_avg(x) = -mean over the target of ||x - y||_2.

    Attributes:
        target: float32 [m, dim].
    """

    target: NDArray[np.float32]

    def scores(self, features: NDArray[np.float16] | NDArray[np.float32], /) -> NDArray[np.float32]:
        target = as_tensor(self.target)
        return _joined([-torch.cdist(rows, target).mean(1) for rows in in_float32(features)])


@dataclass(frozen=True)
class NearestDistance:
    """-mean distance to the `k` nearest of the target: proximity to some part of it, not to its middle.

    Attributes:
        target: float32 [m, dim].
    """

    target: NDArray[np.float32]
    k: int = 10

    def scores(self, features: NDArray[np.float16] | NDArray[np.float32], /) -> NDArray[np.float32]:
        target = as_tensor(self.target)
        k = min(self.k, len(target))
        found = []
        for rows in in_float32(features):
            nearest = torch.cdist(rows, target).topk(k, dim=1, largest=False).values.mean(1)
            # Comparing with NaN picks anything.
            found.append(-nearest.masked_fill(~rows.isfinite().all(1), float("nan")))
        return _joined(found)


def _joined(parts: list[torch.Tensor]) -> NDArray[np.float32]:
    joined: NDArray[np.float32] = torch.cat(parts).numpy() if parts else np.zeros(0, np.float32)
    return joined
