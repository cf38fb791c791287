"""Does the estimator rank alike when only chance, or half of the target, is another?"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.features.splits import episodes_of
from embodied_midtrain.features.store import FeatureTable
from embodied_midtrain.proximity.estimator import Estimator, EstimatorConfig, fit_estimator
from embodied_midtrain.proximity.ranking import spearman


@dataclass(frozen=True)
class Stability:
    """Agreement of rankings, over all pairs of them.

    Attributes:
        fits: how many rankings.
        least, median: Spearman correlation.
        least_overlap, median_overlap: share of the top that two rankings have in common.
    """

    fits: int
    least: float
    median: float
    least_overlap: float
    median_overlap: float


def over_seeds(
    pool: FeatureTable, target: FeatureTable, config: EstimatorConfig, *, seeds: int, seed: int, top: float
) -> tuple[Stability, Estimator]:
    """Fit with several seeds (batches and splits differ); the first fit is returned too.

    Args:
        top: share of the pool that counts as chosen.
    """
    fits = [fit_estimator(pool, target, config, seed=seed + n) for n in range(seeds)]
    return _agreement([fit.scores(pool.features) for fit in fits], top), fits[0]


def over_halves(
    pool: FeatureTable, target: FeatureTable, config: EstimatorConfig, *, splits: int, seed: int, top: float
) -> Stability | None:
    """Split the target's episodes in two at random, some times, and compare the fits on the halves of each split.

    None where halves would have too few rows to fit.
    """
    names, inverse = np.unique(episodes_of(target), return_inverse=True)
    pairs = []
    for n in range(splits):
        first = np.zeros(len(names), bool)
        first[np.random.default_rng(seed + n).permutation(len(names))[: len(names) // 2]] = True
        halves = [target.at(first[inverse]), target.at(~first[inverse])]
        if min(map(len, halves)) < 10:
            return None
        scores = [fit_estimator(pool, half, config, seed=seed).scores(pool.features) for half in halves]
        pairs.append(_agreement(scores, top))
    return Stability(
        2 * splits,
        min(pair.least for pair in pairs),
        float(np.median([pair.median for pair in pairs])),
        min(pair.least_overlap for pair in pairs),
        float(np.median([pair.median_overlap for pair in pairs])),
    )


def _agreement(scores: list[NDArray[np.float32]], top: float) -> Stability:
    count = max(1, round(top * len(scores[0])))
    tops = [set(np.argsort(-own, kind="stable")[:count].tolist()) for own in scores]
    ranks = [spearman(a, b) for a, b in itertools.combinations(scores, 2)]
    overlaps = [len(a & b) / count for a, b in itertools.combinations(tops, 2)]
    return Stability(len(scores), min(ranks), float(np.median(ranks)), min(overlaps), float(np.median(overlaps)))
