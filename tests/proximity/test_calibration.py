import numpy as np
import pytest

from embodied_midtrain.features.store import FeatureTable
from embodied_midtrain.proximity.calibration import calibration_error, fit_calibration, from_numbers, sigmoid
from embodied_midtrain.proximity.estimator import EstimatorConfig, fit_estimator
from embodied_midtrain.proximity.ranking import spearman

RNG = np.random.default_rng(0)
IS_TARGET = np.arange(20_000) >= 12_000
LOGITS = np.where(IS_TARGET, 0.5, -0.5) + RNG.normal(0, 1, 20_000)
"""With equal weights of the sides the true log odds are these themselves."""


def test_a_temperature_is_found_again():
    calibrate, numbers = fit_calibration("temperature", 0.05 * LOGITS, IS_TARGET)
    assert numbers["temperature"][0] == pytest.approx(0.05, rel=0.05)
    assert calibration_error(sigmoid(0.05 * LOGITS), IS_TARGET) > 0.1
    assert calibration_error(calibrate(0.05 * LOGITS), IS_TARGET) < 0.015
    assert from_numbers(numbers)(LOGITS) == pytest.approx(calibrate(LOGITS))


def test_steps_mend_what_no_temperature_does():
    bent = np.sign(LOGITS) * np.abs(LOGITS) ** 3 + 2.0
    steps, numbers = fit_calibration("isotonic", bent[::2], IS_TARGET[::2])
    assert calibration_error(steps(bent[1::2]), IS_TARGET[1::2]) < 0.02
    one, _ = fit_calibration("temperature", bent[::2], IS_TARGET[::2])
    assert calibration_error(one(bent[1::2]), IS_TARGET[1::2]) > 0.05
    again = from_numbers(numbers)(np.array([np.nan, -99.0, 99.0]))
    assert np.isnan(again[0]) and 0 <= again[1] < again[2] <= 1
    assert (np.diff(steps(np.sort(bent))) >= 0).all()


def test_the_error_against_a_loop():
    probabilities = sigmoid(LOGITS[:1000] * 3)
    target = RNG.random(1000) < 0.5
    order = np.argsort(probabilities)
    weight = np.where(target, 0.5 / target.sum(), 0.5 / (~target).sum())
    total, reached, bins = 0.0, 0.0, {}
    for n in order:
        row = bins.setdefault(int((reached + weight[n] / 2) * 15), [0.0, 0.0])
        reached += weight[n]
        row[0] += weight[n] * probabilities[n]
        row[1] += weight[n] * target[n]
    total = sum(abs(a - b) for a, b in bins.values())
    assert calibration_error(probabilities, target) == pytest.approx(total, abs=1e-9)
    with pytest.raises(ValueError, match="held-out rows"):
        calibration_error(probabilities, np.zeros(1000, bool))


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
@pytest.mark.parametrize("hidden", [0, 32])
def test_an_estimator_that_stopped_early_is_calibrated(method, hidden):
    """On Gaussians with a known ratio: rank correlation .98, calibration error .03 (the issue's figures)."""
    rng = np.random.default_rng(3)
    pool, target = (rng.normal(0, 1, (20_000, 12)).astype(np.float32) for _ in range(2))
    target[:, 0] += 2.0
    names = np.array([f"{n:05d}/0" for n in range(20_000)])
    tables = [FeatureTable(np.full(20_000, "s"), names, side) for side in (pool, target)]
    # A batch of 128 is noise enough to turn the weight; small steps average it out.
    config = EstimatorConfig(
        lr=1e-3, min_steps=1500, stop_accuracy=0.83, hidden=hidden, calibration=method, batch_size=512
    )
    fitted = fit_estimator(*tables, config)
    rows = rng.normal(0, 1, (4000, 12)).astype(np.float32)
    moved = rows + np.eye(12, dtype=np.float32)[0] * 2.0
    truth = 2.0 * rows[:, 0] - 2.0
    # Isotonic steps make scores equal, so that the logits rank.
    assert spearman(fitted.logits(rows), truth) >= 0.98
    both = fitted.scores(np.concatenate([rows, moved]))
    assert calibration_error(both, np.arange(8000) >= 4000) <= 0.03
    assert fitted.errors[1] <= 0.03
    assert np.median(np.abs(fitted.log_ratio(fitted.scores(rows)) - truth)) < 0.3
    broken = rows[:3].copy()
    broken[1, 4] = np.nan
    assert np.isnan(fitted.scores(broken)).tolist() == [False, True, False]
