"""The probe against scikit-learn, and on episodes that give themselves away."""

import numpy as np
import pytest

from embodied_midtrain.gap.probe import RIDGE, cross_validated, fit_linear


def own_episodes(count: int) -> np.ndarray:
    return np.arange(count).astype(str)


def test_the_fit_is_that_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (90, 4)).astype("f"), rng.normal(0.7, 1, (30, 4)).astype("f")
    weight, bias = fit_linear(a, b)
    # Balanced classes in a sum of losses weigh n/2 each; ours is a mean of the two sides' means.
    mean = (a.mean(0) + b.mean(0)) / 2
    std = np.sqrt((a.var(0) + b.var(0)) / 2 + ((a.mean(0) - b.mean(0)) / 2) ** 2)
    rows = (np.concatenate([a, b]) - mean) / std
    sides = np.repeat([0, 1], [90, 30])
    weights = np.repeat([0.5 / 90, 0.5 / 30], [90, 30])
    peer = linear_model.LogisticRegression(C=1 / RIDGE, tol=1e-8, max_iter=1000).fit(rows, sides, weights)
    assert weight * std == pytest.approx(peer.coef_[0], abs=2e-3)
    assert bias + mean @ weight == pytest.approx(peer.intercept_[0], abs=2e-3)


def test_accuracy_and_distance() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, (400, 3)).astype("f"), rng.normal(0, 1, (400, 3)).astype("f")
    alike = cross_validated(a, b, episodes=own_episodes(400))
    assert 0.43 < alike.accuracy < 0.57 and alike.a_distance < 0.3
    b[:, 0] += 2.0
    # Two unit Gaussians two apart: the best rule errs with probability Phi(-1).
    apart = cross_validated(a, b, episodes=own_episodes(400))
    assert apart.accuracy == pytest.approx(0.841, abs=0.03)
    assert apart.a_distance == pytest.approx(2 * (1 - 2 * (1 - apart.accuracy)))
    assert (apart.pool < 0).mean() > 0.8 and (apart.target > 0).mean() > 0.8


def test_episodes_are_not_split() -> None:
    # Every frame of an episode is one point in 60 dimensions; pool rows too. Nothing general tells the sides apart.
    rng = np.random.default_rng(2)
    points = rng.normal(0, 1, (40, 60)).astype("f")
    target, pool = np.repeat(points[:20], 10, 0), np.repeat(points[20:], 10, 0)
    names = np.repeat(np.arange(20), 10).astype(str)
    honest = cross_validated(pool, target, episodes=names, pictures=names)
    naive = cross_validated(pool, target, episodes=own_episodes(200))
    assert naive.accuracy > 0.95 > 0.75 > honest.accuracy


def test_a_constant_is_a_coin_and_few_rows_are_refused() -> None:
    assert cross_validated(np.ones((20, 2), "f"), np.ones((20, 2), "f"), episodes=own_episodes(20)).accuracy == 0.5
    with pytest.raises(ValueError, match="5 folds need"):
        cross_validated(np.ones((3, 2), "f"), np.ones((20, 2), "f"), episodes=own_episodes(20))
