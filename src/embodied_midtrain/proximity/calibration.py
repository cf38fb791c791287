"""Scores that mean what they say: of the rows scored .8, four in five are the target's (balanced sides).

Early stopping leaves logits that rank well and are far too small; one temperature (Guo et al., 2017) or a monotone step
function (Zadrozny and Elkan, 2002) fitted to held-out rows mends their size. Neither changes an order, except that
steps make scores equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.extras import require

Method = Literal["none", "temperature", "isotonic"]
Calibrate = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From logits to probabilities."""
BINS = 15


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    # By the tangent: no overflow, and NaN stays NaN.
    found: NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))
    return found


def fit_calibration(
    method: Method, logits: NDArray[np.floating], is_target: NDArray[np.bool_]
) -> tuple[Calibrate, dict[str, list[float]]]:
    """A calibration fitted to held-out logits [n], both sides with equal weight, and the numbers that it consists of.

    Raises:
        ValueError: where a side is empty.
        StageError: isotonic without scikit-learn.
    """
    if method == "none":
        return from_numbers({}), {}
    values = logits.astype(np.float64)
    weights = balance(is_target)
    if method == "temperature":
        numbers = {"temperature": [_temperature(values, is_target, weights)]}
    else:
        # As many rows as there are cannot show a probability nearer to 0 or 1 than this.
        least = 1.0 / (len(values) + 2)
        isotonic = require("sklearn.isotonic", "report").IsotonicRegression
        steps = isotonic(y_min=least, y_max=1.0 - least, out_of_bounds="clip")
        steps.fit(values, is_target.astype(np.float64), sample_weight=weights)
        numbers = {"logits": steps.X_thresholds_.tolist(), "probabilities": steps.y_thresholds_.tolist()}
    return from_numbers(numbers), numbers


def from_numbers(numbers: dict[str, list[float]]) -> Calibrate:
    """The calibration that these numbers stand for; none of them: a plain sigmoid."""
    if "temperature" in numbers:
        temperature = numbers["temperature"][0]
        return lambda logits: sigmoid(logits / temperature)
    if "logits" in numbers:
        at, to = np.array(numbers["logits"]), np.array(numbers["probabilities"])
        return lambda logits: np.where(np.isnan(logits), np.nan, np.interp(logits, at, to))
    return sigmoid


def balance(is_target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weights that give both sides half of the whole: [n], of sum 1.

    Raises:
        ValueError: where a side is empty.
    """
    sizes = np.array([(~is_target).sum(), is_target.sum()])
    if not sizes.all():
        raise ValueError("calibration needs held-out rows of pool and target")
    return 0.5 / sizes[is_target.astype(int)]


def _temperature(logits: NDArray[np.float64], is_target: NDArray[np.bool_], weights: NDArray[np.float64]) -> float:
    """The one that makes the held-out cross entropy least, by bisection of its derivative in 1 / T (convex)."""
    signed = np.where(is_target, 1.0, -1.0) * logits
    low, high = 1e-4, 1e4
    for _ in range(80):
        middle = float(np.sqrt(low * high))
        slope = float((weights * signed * sigmoid(-middle * signed)).sum())
        low, high = (middle, high) if slope > 0 else (low, middle)
    return 1.0 / low


def calibration_error(probabilities: NDArray[np.floating], is_target: NDArray[np.bool_]) -> float:
    """Expected calibration error: mean of |share of target - mean probability| over bins of equal weight."""
    weights = balance(is_target)
    # Equal probabilities stay together: steps make many, and their order says nothing.
    _, place = np.unique(probabilities, return_inverse=True)
    mass = np.bincount(place, weights)
    bins = np.minimum(((np.cumsum(mass) - mass / 2) * BINS).astype(int), BINS - 1)[place]
    said = np.bincount(bins, weights * probabilities, BINS)
    true = np.bincount(bins, weights * is_target, BINS)
    return float(np.abs(true - said).sum())
