"""Every measure against a few lines of numpy; the ratio of known Gaussians found again."""

import numpy as np
import pytest

from embodied_midtrain.features.store import FeatureTable
from embodied_midtrain.proximity.distance import MeanDistance, NearestDistance
from embodied_midtrain.proximity.estimator import EstimatorConfig, fit_estimator
from embodied_midtrain.proximity.ranking import spearman
from embodied_midtrain.proximity.scoring import linear

RNG = np.random.default_rng(0)
ROWS = RNG.normal(0, 1, (1200, 7)).astype(np.float32)
TARGET = RNG.normal(1, 1, (60, 7)).astype(np.float32)
DISTANCES = np.linalg.norm(ROWS[:, None].astype(np.float64) - TARGET[None], axis=2)


def test_a_linear_score():
    weight = RNG.normal(0, 1, 7).astype(np.float32)
    assert linear(ROWS, weight) == pytest.approx(ROWS @ weight, abs=1e-5)
    half = ROWS.astype(np.float16)
    assert linear(half, weight) == pytest.approx(half.astype(np.float32) @ weight, abs=1e-5)
    assert len(linear(ROWS[:0], weight)) == 0


def test_mean_distance():
    assert MeanDistance(TARGET).scores(ROWS) == pytest.approx(-DISTANCES.mean(1), abs=1e-4)


@pytest.mark.parametrize("k", [1, 10, 100])
def test_distance_to_the_nearest(k):
    wanted = -np.sort(DISTANCES, axis=1)[:, :k].mean(1)
    assert NearestDistance(TARGET, k).scores(ROWS) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("scorer", [MeanDistance(TARGET), NearestDistance(TARGET)])
def test_a_row_that_is_no_number_has_no_score(scorer):
    rows = ROWS[:5].copy()
    rows[2, 3] = np.nan
    assert np.isnan(scorer.scores(rows)).tolist() == [False, False, True, False, False]


def gaussians(shift: float = 1.0, dim: int = 4, count: int = 5000):
    """Two Gaussians, and log p_target / p_pool of the first one's rows."""
    rng = np.random.default_rng(5)
    pool, target = (rng.normal(0, 1, (count, dim)).astype(np.float32) for _ in range(2))
    target[:, 0] += shift
    return pool, target, shift * pool[:, 0] - shift**2 / 2


def test_the_estimator_ranks_by_the_true_ratio_and_is_calibrated():
    pool, target, log_ratio = gaussians()
    names = np.array([f"{n}/0" for n in range(len(pool))])
    sides = [FeatureTable(np.full(len(pool), "s"), names, rows) for rows in (pool, target)]
    config = EstimatorConfig(lr=3e-3, stop_accuracy=1.0, max_steps=1500, batch_size=512)
    scores = fit_estimator(*sides, config).scores(pool)
    assert spearman(scores, log_ratio) >= 0.98
    # What it says is the chance that a row is the target's, where both sides are as frequent.
    both = np.concatenate([scores, fit_estimator(*sides, config).scores(target)])
    truth = np.concatenate([np.zeros(len(pool)), np.ones(len(target))])
    bins = np.clip((both * 10).astype(int), 0, 9)
    error = sum(abs(both[bins == b].mean() - truth[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins))
    assert error <= 0.03
