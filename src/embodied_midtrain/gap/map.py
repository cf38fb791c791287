"""The 2-D map of pool and target: t-SNE by openTSNE."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.extras import require


def map_2d(features: NDArray[np.float32], *, seed: int = 0, perplexity: float = 30.0) -> NDArray[np.float32]:
    """t-SNE coordinates of rows, in [0, 1] with equal scale on both axes: [n, 2].

    Features are standardised and reduced to 50 principal components first, as is usual.

    Raises:
        ValueError: on fewer than 10 rows.
        StageError: where openTSNE is not installed.
    """
    if len(features) < 10:
        raise ValueError(f"a map needs at least 10 features, not {len(features)}")
    tsne = require("openTSNE", "report")
    decomposition = require("sklearn.decomposition", "report")
    scaled = (features - features.mean(0)) / (features.std(0) + 1e-6)
    parts = min(50, *scaled.shape)
    reduced = decomposition.PCA(parts, random_state=seed, svd_solver="randomized").fit_transform(scaled)
    # One job: with several, sums come in another order and the map differs from run to run.
    model = tsne.TSNE(
        perplexity=min(perplexity, (len(features) - 1) / 3),
        random_state=seed,
        n_jobs=1,
        initialization="pca",
        n_iter=350,
    )
    points = np.asarray(model.fit(reduced.astype(np.float64)), dtype=np.float64)
    low, span = points.min(0), float(np.ptp(points, axis=0).max())
    return ((points - low) / max(span, 1e-12)).astype(np.float32)
