"""What ranks a pool: the selectors by name, their settings, and the scores that each gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Artifact, StageError, StageRun, atomic_path
from embodied_midtrain.features.drawing import draw_rows
from embodied_midtrain.features.store import FeatureStore, FeatureTable, read_features
from embodied_midtrain.proximity.aligning import in_order, names_of
from embodied_midtrain.proximity.density import RatioConfig, fit_ratio
from embodied_midtrain.proximity.distance import MeanDistance, NearestDistance
from embodied_midtrain.proximity.estimator import Estimator, EstimatorConfig, fit_estimator
from embodied_midtrain.proximity.perplexity import perplexity
from embodied_midtrain.proximity.score import By, read_scores
from embodied_midtrain.proximity.scoring import score_store

Selector = Literal[
    "estimator",
    "ratio",
    "mean-distance",
    "knn-distance",
    "perplexity",
    "delta-perplexity",
    "text",
    "influence",
    "random",
    "matched-random",
]
GIVEN: dict[str, By] = {
    "perplexity": "perplexity",
    "delta-perplexity": "perplexity",
    "text": "text",
    "influence": "influence",
}
"""Selectors that take the numbers of an 'emt score' folder, and by what these must have been made."""


@dataclass(frozen=True)
class SelectConfig:
    """What is kept of the pool, and by which measure."""

    selector: Selector = "estimator"
    """The learned proximity estimator; the density ratio by least squares (uLSIF); mean distance to the target, or to
    the nearest of it; perplexity under a backbone that was tuned on the robot (--scores), or how much it fell by that
    (--before); the ratio of the words alone (DSIR, --scores); the cosine of a sample's gradient and those of the
    action loss (LESS, --scores); a uniform draw; a uniform draw with the counts per source of another selection
    (--match)."""
    k: int = 1000
    """Samples to keep."""
    seed: int = 0
    """Draws, batches and splits."""
    draw: Literal["top", "gumbel"] = "top"
    """The K highest scores, or a draw in proportion to the density ratio (estimator, ratio, text)."""
    temperature: float = 1.0
    """Of that draw: below 1 nearer to the hard cut, above 1 nearer to a uniform draw."""
    cap: float = 1.0
    """Share of the selection that one source may have."""
    floor: float = 0.0
    """Share of the selection that each source has at least, as far as it has samples."""
    distinct: float = 1.0
    """Cosine of two features above which the lower scored sample is a near-duplicate and left out; 1: none is."""
    fit_rows: int = 200_000
    """Rows of the pool that a measure is fitted to, drawn with the seed."""
    neighbours: int = 10
    """Of knn-distance."""
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)
    ratio: RatioConfig = field(default_factory=RatioConfig)

    def check(self) -> None:
        """Raise ValueError on settings that cannot be meant."""
        if not 0 < self.cap <= 1 or not 0 <= self.floor <= 1:
            raise ValueError(f"cap {self.cap} and floor {self.floor} are shares: above 0 (or 0), at most 1")
        if not 0 < self.distinct <= 1:
            raise ValueError(f"distinct {self.distinct} is a cosine: above 0, at most 1")
        if self.draw == "gumbel" and self.selector not in ("estimator", "ratio", "text"):
            raise ValueError(f"{self.selector} gives no density ratio to draw in proportion to; use --draw top")
        if self.draw == "gumbel" and self.selector == "estimator" and self.estimator.calibration == "none":
            raise ValueError(
                "a draw in proportion to the ratio needs scores that mean what they say: add --calibration temperature"
            )


@dataclass(frozen=True)
class Scored:
    """A pool's scores.

    Attributes:
        scores: in the store's order, higher is closer, NaN where a sample cannot be scored: float32 [rows].
        fit: what there is to say of how the measure was fitted; None where nothing was.
        log_ratio: from scores to log(p_target / p_pool), where they say that.
        missing: why a score may be NaN, in a word.
    """

    scores: NDArray[np.float32]
    fit: dict[str, Any] | None = None
    log_ratio: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None
    missing: str = "nan feature"


@dataclass(frozen=True)
class Given:
    """What a selector may take beside features."""

    match: Artifact | None = None
    scores: Artifact | None = None
    before: Artifact | None = None

    def inputs(self) -> dict[str, Artifact]:
        named = {"match": self.match, "scores": self.scores, "before": self.before}
        return {name: artifact for name, artifact in named.items() if artifact is not None}

    def check(self, selector: Selector, pool: Artifact) -> None:
        """Raise `StageError` where the selector lacks something, or was given something of another pool."""
        wanted = {"matched-random": ["match"], "delta-perplexity": ["scores", "before"]}.get(
            selector, ["scores"] if selector in GIVEN else []
        )
        have = self.inputs()
        if missing := [f"--{name}" for name in wanted if name not in have]:
            raise StageError(f"{selector} needs {' and '.join(missing)}; see 'emt select --help'.")
        if extra := [f"--{name}" for name in have if name not in wanted]:
            raise StageError(f"{selector} takes no {' and no '.join(extra)}.")
        for name in ("scores", "before"):
            if name not in have:
                continue
            facts = have[name].manifest
            if facts["config"]["by"] != GIVEN[selector]:
                raise StageError(f"{have[name].path} holds scores by {facts['config']['by']}, {selector} needs others.")
            if facts["inputs"]["pool"] != pool.manifest["inputs"].get("pool"):
                raise StageError(
                    f"{have[name].path} and {pool.path} are of different pools; give both 'emt score' and 'emt embed' "
                    "the same one."
                )


def score_pool(run: StageRun, config: SelectConfig, store: FeatureStore, target: Artifact, given: Given) -> Scored:
    """The scores of all samples by the selector of `config`."""
    if config.selector in ("random", "matched-random"):
        # Two controls, two draws: with one the second would repeat the first within each source.
        rng = np.random.default_rng([config.seed, int(config.selector == "matched-random")])
        return Scored(rng.random(store.rows, dtype=np.float32))
    if config.selector in GIVEN:
        return _given(config.selector, store, given)
    near = read_features(target, run.skips)
    if config.selector == "mean-distance":
        return Scored(score_store(MeanDistance(near.features), store))
    if config.selector == "knn-distance":
        return Scored(score_store(NearestDistance(near.features, config.neighbours), store))
    if config.selector == "ratio":
        return _by_ratio(config, store, near)
    fitted = fit_estimator(draw_rows(store, config.fit_rows, config.seed), near, config.estimator, seed=config.seed)
    with atomic_path(run.file("estimator.npz")) as path:
        fitted.save(path)
    return Scored(score_store(fitted, store), _facts(fitted), fitted.log_ratio)


def _by_ratio(config: SelectConfig, store: FeatureStore, near: FeatureTable) -> Scored:
    rows = draw_rows(store, min(config.ratio.rows, config.fit_rows), config.seed)
    ratio = fit_ratio(rows.features, near.features, config.ratio, seed=config.seed)
    fit = {"width": ratio.width, "ridge": ratio.ridge, "relative": ratio.relative, "loss": ratio.loss}
    return Scored(score_store(ratio, store), fit, ratio.log_ratio)


def _facts(fitted: Estimator) -> dict[str, Any]:
    before, after = fitted.errors
    return {
        "accuracy": fitted.accuracy,
        "steps": fitted.steps,
        "stopped_by": fitted.stopped_by,
        "curve": fitted.curve,
        "calibration_error": {"plain": before, "calibrated": after},
        "notes": fitted.notes,
    }


def _given(selector: Selector, store: FeatureStore, given: Given) -> Scored:
    assert given.scores is not None
    values = _in_store_order(store, given.scores)
    if selector == "text":
        return Scored(values, None, lambda scores: scores, "no score")
    if selector == "influence":
        return Scored(values, None, None, "no score")
    scores = -perplexity(values)
    if selector == "delta-perplexity":
        assert given.before is not None
        scores += perplexity(_in_store_order(store, given.before))
    return Scored(scores, None, None, "no score")


def _in_store_order(store: FeatureStore, scores: Artifact) -> NDArray[np.float32]:
    parts = ((sources, ids, values[:, None]) for sources, ids, values in read_scores(scores))
    found = np.concatenate([values[:, 0] for values in in_order(parts, names_of(store))]).astype(np.float32)
    if not np.isfinite(found).any():
        raise StageError(f"{scores.path} has a score for none of the samples; was it made from this pool?")
    return found
