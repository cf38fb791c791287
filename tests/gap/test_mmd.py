import numpy as np
import pytest

from embodied_midtrain.gap import mmd
from embodied_midtrain.gap.diversity import diversity


def naive(x: np.ndarray, y: np.ndarray, sigma: float, biased: bool) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-((a[:, None].astype(float) - b[None].astype(float)) ** 2).sum(-1) / (2 * sigma**2))

    def within(a: np.ndarray) -> float:
        values = k(a, a)
        return values.mean() if biased else (values.sum() - np.trace(values)) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * k(x, y).mean()


@pytest.mark.parametrize("biased", [True, False])
def test_blocks_equal_the_formula(biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(5, 1, (37, 9)).astype(np.float32), rng.normal(5.4, 1, (23, 9)).astype(np.float32)
    monkeypatch.setattr(mmd, "BLOCK", 10)
    assert mmd.squared_mmd(x, y, 3.0, biased=biased) == pytest.approx(naive(x, y, 3.0, biased), abs=1e-6)
    monkeypatch.setattr(mmd, "COLUMNS", 7)
    found = mmd.mmd_matrix({"x": x, "y": y, "z": y[:1]}, 3.0)
    matrix = found.biased if biased else found.unbiased
    assert found.names == ["x", "y", "z"]
    assert matrix[0, 1] == matrix[1, 0] == pytest.approx(naive(x, y, 3.0, biased), abs=1e-6)
    assert matrix[1, 1] == 0 and np.isnan(found.unbiased[0, 2])


def test_large_and_far_apart_values_stay_exact() -> None:
    rng = np.random.default_rng(2)
    x, y = (rng.normal(shift, 1, (60, 16)).astype(np.float32) for shift in (1000, 1000.2))
    x[0] = 60000.0
    assert mmd.squared_mmd(x, y, 4.0) == pytest.approx(naive(x, y, 4.0, False), abs=2e-3)
    assert mmd.squared_mmd(x[1:], y, 4.0) == pytest.approx(naive(x[1:], y, 4.0, False), abs=1e-5)


def test_the_kernel_matrix() -> None:
    rows = np.random.default_rng(3).normal(3, 1, (9, 5)).astype(np.float32)
    wanted = np.exp(-((rows[:, None].astype(float) - rows[None]) ** 2).sum(-1) / (2 * 2.0**2))
    assert mmd.kernel_matrix(rows, 2.0).numpy() == pytest.approx(wanted, abs=1e-6)


def test_equal_laws_are_near_zero_and_others_are_not() -> None:
    rng = np.random.default_rng(1)
    x, same, other = rng.normal(size=(500, 8)), rng.normal(size=(500, 8)), rng.normal(0.5, 1, (500, 8))
    sigma = mmd.median_bandwidth(x.astype(np.float32))
    assert abs(mmd.squared_mmd(x.astype(np.float32), same.astype(np.float32), sigma)) < 0.003
    assert mmd.squared_mmd(x.astype(np.float32), other.astype(np.float32), sigma) > 0.02


def test_median_bandwidth() -> None:
    line = np.array([[0.0], [1.0], [3.0]], dtype=np.float32)
    assert mmd.median_bandwidth(line) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="all features are equal"):
        mmd.median_bandwidth(np.ones((4, 2), np.float32))
    with pytest.raises(ValueError, match="at least two"):
        mmd.median_bandwidth(line[:1])
    with pytest.raises(ValueError, match="at least two rows"):
        mmd.squared_mmd(line[:1], line, 1.0)


def test_diversity() -> None:
    assert diversity(np.array([[1.0, 0], [2.0, 0]], np.float32)) == pytest.approx(1.0, abs=1e-5)
    # Opposite unit vectors: squared distance 4, t 2.
    assert diversity(np.array([[1.0, 0], [-3.0, 0]], np.float32)) == pytest.approx(np.exp(8.0), rel=1e-4)
    with pytest.raises(ValueError):
        diversity(np.ones((1, 2), np.float32))
