"""The least-squares ratio: equal to the textbook's formula, and right on Gaussians whose ratio is known."""

import numpy as np
import pytest

from embodied_midtrain.proximity.density import RatioConfig, fit_ratio
from embodied_midtrain.proximity.ranking import spearman


def sides(dim, rows=6000, seed=0, shift=1.0):
    rng = np.random.default_rng(seed)
    pool, target = (rng.normal(0, 1, (rows, dim)).astype(np.float32) for _ in range(2))
    target[:, 0] += shift
    return pool, target


def reference(ratio, pool, target, rows):
    """alpha by numpy from the same centres, width and ridge; every row of both sides counts the same."""

    def scale(x):
        return (x.astype(np.float64) - ratio.mean) / ratio.std

    def kernel(x):
        return np.exp(-((x[:, None] - ratio.centres[None]) ** 2).sum(2) / (2 * ratio.width**2))

    on_pool, on_target = kernel(scale(pool)), kernel(scale(target))
    products = (1 - ratio.relative) * on_pool.T @ on_pool / len(pool)
    products += ratio.relative * on_target.T @ on_target / len(target)
    alpha = np.linalg.solve(products + ratio.ridge * np.eye(len(products)), on_target.mean(0))
    return kernel(scale(rows)) @ alpha


@pytest.mark.parametrize("relative", [0.0, 0.5])
def test_against_numpy(relative):
    pool, target = sides(3, rows=400)
    ratio = fit_ratio(pool, target, RatioConfig(relative=relative, centres=30))
    # float32 means and deviations stand in the fit; wide kernels nearly cancel.
    assert ratio.scores(pool[:50]) == pytest.approx(reference(ratio, pool, target, pool[:50]), rel=2e-2, abs=1e-2)


@pytest.mark.parametrize("dim", [2, 8, 32])
def test_it_ranks_gaussians_by_their_ratio(dim):
    pool, target = sides(dim)
    ratio = fit_ratio(pool, target)
    rows = np.random.default_rng(9).normal(0, 1, (3000, dim)).astype(np.float32)
    # log p_target / p_pool = x_0 - 1/2 for these two.
    assert spearman(ratio.scores(rows), rows[:, 0]) >= 0.98


def test_it_also_finds_a_ratio_that_no_line_gives():
    rng = np.random.default_rng(1)
    pool = rng.normal(0, 1, (6000, 2)).astype(np.float32)
    target = rng.normal(0, 0.6, (6000, 2)).astype(np.float32)
    rows = rng.normal(0, 1, (3000, 2)).astype(np.float32)
    assert spearman(fit_ratio(pool, target).scores(rows), -(rows**2).sum(1)) >= 0.98


def test_the_plain_ratio_comes_back():
    pool, target = sides(2, rows=8000)
    ratio = fit_ratio(pool, target)
    rows = pool[np.abs(pool[:, 0]) < 1.5]
    log_ratio = ratio.log_ratio(ratio.scores(rows))
    assert np.median(np.abs(log_ratio - (rows[:, 0] - 0.5))) < 0.2


def test_a_row_that_is_no_number_has_no_score():
    pool, target = sides(3, rows=200)
    rows = pool[:4].copy()
    rows[1, 0] = np.nan
    assert np.isnan(fit_ratio(pool, target).scores(rows)).tolist() == [False, True, False, False]


def test_settings_that_cannot_be_meant():
    pool, target = sides(2, rows=50)
    with pytest.raises(ValueError, match="below 1"):
        fit_ratio(pool, target, RatioConfig(relative=1.0))
    with pytest.raises(ValueError, match="too few"):
        fit_ratio(pool, target, RatioConfig(centres=1))
    with pytest.raises(ValueError, match="at least 5"):
        fit_ratio(pool[:3], target)
