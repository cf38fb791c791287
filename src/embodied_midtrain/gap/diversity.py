"""Diversity of a set of features (EmbodiedMidtrain, analyses; uniformity of Wang and Isola 2020, t = 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.gap.mmd import kernel_mean


def diversity(features: NDArray[np.float32], t: float = 2.0) -> float:
    """1 / E[exp(-t ||u - v||^2)] over different rows u, v of unit length; 1 where all are equal.

    Args:
        features: [n, dim], n at least 2; scaled to unit length here.

    Raises:
        ValueError: on fewer than two rows.
    """
    if len(features) < 2:
        raise ValueError("diversity needs at least two features")
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    # exp(-t d^2) is the Gaussian kernel with 2 sigma^2 = 1 / t.
    return 1.0 / kernel_mean(unit.astype(np.float32), unit.astype(np.float32), (2.0 * t) ** -0.5, same=True)
