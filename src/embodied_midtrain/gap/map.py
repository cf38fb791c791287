"""The 2-D map of pool and target: t-SNE by openTSNE, or UMAP by umap-learn."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.extras import require


def map_2d(
    features: NDArray[np.float32],
    *,
    how: Literal["tsne", "umap"] = "tsne",
    seed: int = 0,
    perplexity: float = 30.0,
) -> NDArray[np.float32]:
    """Coordinates of rows, in [0, 1] with equal scale on both axes: [n, 2].

    Features are standardised and reduced to 50 principal components first, as is usual.

    Args:
        perplexity: of t-SNE; about the neighbours that count. UMAP takes half as many neighbours.

    Raises:
        ValueError: on fewer than 10 rows.
        StageError: where openTSNE or umap-learn is not installed.
    """
    if len(features) < 10:
        raise ValueError(f"a map needs at least 10 features, not {len(features)}")
    decomposition = require("sklearn.decomposition", "report")
    scaled = (features - features.mean(0)) / (features.std(0) + 1e-6)
    parts = min(50, *scaled.shape)
    reduced = decomposition.PCA(parts, random_state=seed, svd_solver="randomized").fit_transform(scaled)
    near = min(perplexity, (len(features) - 1) / 3)
    points = np.asarray((_umap if how == "umap" else _tsne)(reduced.astype(np.float64), near, seed), dtype=np.float64)
    low, span = points.min(0), float(np.ptp(points, axis=0).max())
    return ((points - low) / max(span, 1e-12)).astype(np.float32)


def _tsne(rows: NDArray[np.float64], perplexity: float, seed: int) -> Any:
    tsne = require("openTSNE", "report")
    # One job: with several, sums come in another order and the map differs from run to run.
    model = tsne.TSNE(perplexity=perplexity, random_state=seed, n_jobs=1, initialization="pca", n_iter=350)
    return model.fit(rows)


def _umap(rows: NDArray[np.float64], perplexity: float, seed: int) -> Any:
    umap = require("umap", "umap")
    model = umap.UMAP(n_neighbors=max(2, round(perplexity / 2)), random_state=seed, n_jobs=1)
    return model.fit_transform(rows)
