"""The learned proximity estimator (EmbodiedMidtrain, section 4 and A.4).

A linear classifier (or one with a hidden layer) on frozen features tells target (positive) from pool (negative). At
its optimum s* = p_target / (p_target + p_pool), monotone in the density ratio, so ranking by s ranks by the ratio.
It is stopped early, at 90 % validation accuracy: trained to the end it saturates and the ranking is rewritten.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.features.scaling import balanced_scale
from embodied_midtrain.features.splits import held_out_episodes
from embodied_midtrain.features.store import FeatureTable
from embodied_midtrain.proximity.calibration import (
    Method,
    calibration_error,
    fit_calibration,
    from_numbers,
    sigmoid,
)
from embodied_midtrain.proximity.scoring import in_float32, linear

EARLY_STEPS = 10
"""Stopping before this many steps means that the sides differ at a glance, and the stop rule chose nothing."""


@dataclass(frozen=True)
class EstimatorConfig:
    """How the linear estimator is fitted."""

    batch_size: int = 128
    """Rows in a batch, half of the pool, half of the target."""
    lr: float = 1e-4
    """Learning rate of Adam."""
    max_steps: int = 2000
    """Where to give up waiting for the stop accuracy."""
    stop_accuracy: float = 0.9
    """Balanced validation accuracy at which fitting stops."""
    min_steps: int = 75
    """Steps before which it does not stop (the paper's runs stop after 75 to 100)."""
    start: Literal["zero", "random"] = "zero"
    """First weights. Random ones, as torch starts a layer, are still in the ranking when the rule stops: two seeds
    then agree little. From zero, one step already points from one mean to the other, hence min_steps."""
    held_out: float = 0.1
    """Share of each side that validates; the target's by whole episodes."""
    hidden: int = 0
    """Units of a hidden layer (ReLU); 0: linear, as in the paper."""
    calibration: Method = "none"
    """What makes of the scores probabilities, fitted to the validating rows: one temperature, or a monotone step
    function. The order stays; a draw in proportion to the ratio needs one."""


@dataclass(frozen=True)
class Estimator:
    """A fitted estimator: score = calibrated(layers((x - mean) / std)).

    Attributes:
        mean, std: float32 [dim].
        layers: weight [out, in] and bias [out] of each, the last with one output; between two a ReLU.
        calibration: what `calibration.from_numbers` takes.
        accuracy: balanced validation accuracy at the stop.
        steps: optimiser steps taken.
        stopped_by: "accuracy" or "max_steps".
        curve: validation accuracy after each step.
        errors: expected calibration error without and with the calibration, each half of the validating rows judged
            by what the other half gives.
        notes: plain words where the fit should not be trusted as it is.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    layers: list[tuple[NDArray[np.float32], NDArray[np.float32]]]
    calibration: dict[str, list[float]]
    accuracy: float
    steps: int
    stopped_by: str
    curve: list[float]
    errors: tuple[float, float]
    notes: list[str] = field(default_factory=list)

    def logits(self, features: NDArray[np.float16] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Before calibration: [n]; NaN where a row holds a NaN."""
        # Folding the scaling into the first weight makes it one product over the features as they are stored.
        weight, bias = self.layers[0]
        folded = weight / self.std
        shift = bias - folded @ self.mean
        if len(self.layers) == 1:
            return linear(features, folded[0]) + shift[0]
        first, offset = torch.from_numpy(folded), torch.from_numpy(shift)
        last, end = (torch.from_numpy(part) for part in self.layers[1])
        parts = [
            torch.nn.functional.linear(torch.relu(torch.nn.functional.linear(rows, first, offset)), last, end)[:, 0]
            # A ReLU makes 0 of NaN on some processors.
            .masked_fill(~rows.isfinite().all(1), float("nan"))
            for rows in in_float32(features)
        ]
        joined: NDArray[np.float32] = torch.cat(parts).numpy() if parts else np.zeros(0, np.float32)
        return joined

    def scores(self, features: NDArray[np.float16] | NDArray[np.float32], /) -> NDArray[np.float32]:
        """Proximity of each row, from 0 to 1: [n]."""
        return from_numbers(self.calibration)(self.logits(features).astype(np.float64)).astype(np.float32)

    def log_ratio(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """From scores to log(p_target / p_pool), as far as they are calibrated."""
        kept = np.clip(scores, 1e-6, 1 - 1e-6)
        found: NDArray[np.float32] = np.log(kept / (1 - kept)).astype(np.float32)
        return found

    def save(self, path: Path) -> None:
        """Everything that scores, as an .npz file."""
        arrays = {
            f"{kind}{n}": part
            for n, layer in enumerate(self.layers)
            for kind, part in zip(("weight", "bias"), layer, strict=True)
        }
        numbers = {f"calibration-{name}": np.array(values) for name, values in self.calibration.items()}
        everything: dict[str, Any] = {"mean": self.mean, "std": self.std, **arrays, **numbers}
        with path.open("wb") as file:
            np.savez(file, **everything)


def fit_estimator(pool: FeatureTable, target: FeatureTable, config: EstimatorConfig, *, seed: int = 0) -> Estimator:
    """Fit on pool (negative) and target (positive) features, balanced over the target's tasks.

    Raises:
        StageError: where a side has too few rows to fit and validate.
    """
    for name, table in (("pool", pool), ("target", target)):
        if len(table) < 10:
            raise StageError(
                f"the {name} has {len(table)} usable features; the estimator needs at least 10 on each side"
            )
    rng = np.random.default_rng(seed)
    pool_valid = np.zeros(len(pool), dtype=bool)
    pool_valid[rng.permutation(len(pool))[: max(1, round(config.held_out * len(pool)))]] = True
    target_valid = held_out_episodes(target, config.held_out, rng)

    negatives, positives = np.flatnonzero(~pool_valid), np.flatnonzero(~target_valid)
    mean, std = balanced_scale(pool.features[negatives], target.features[positives])

    def scaled(rows: NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy((rows - mean) / std)

    # Only what a step looks at is scaled: the whole again would cost more than all steps together.
    v_neg, v_pos = scaled(pool.features[pool_valid]), scaled(target.features[target_valid])
    tasks = target.sources[positives]
    by_task = np.argsort(tasks, kind="stable")
    _, starts, counts = np.unique(tasks[by_task], return_index=True, return_counts=True)

    layer, last = _network(len(mean), config, seed)
    optimiser = torch.optim.Adam(layer.parameters(), lr=config.lr)
    half = config.batch_size // 2
    wanted = torch.cat([torch.zeros(half), torch.ones(half)])
    curve: list[float] = []
    accuracy, stopped_by = 0.5, "max_steps"
    for _ in range(config.max_steps):
        task = rng.integers(0, len(counts), half)
        pos = by_task[starts[task] + (rng.random(half) * counts[task]).astype(int)]
        neg = negatives[rng.integers(0, len(negatives), half)]
        batch = scaled(np.concatenate([pool.features[neg], target.features[positives[pos]]]))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(layer(batch).squeeze(1), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            right = ((layer(v_neg) < 0).float().mean() + (layer(v_pos) > 0).float().mean()) / 2
        accuracy = float(right)
        curve.append(accuracy)
        if accuracy >= config.stop_accuracy and len(curve) >= config.min_steps:
            stopped_by = "accuracy"
            break
    with torch.no_grad():
        logits = torch.cat([layer(v_neg), layer(v_pos)]).squeeze(1).numpy()
    is_target = np.arange(len(logits)) >= len(v_neg)
    _, numbers = fit_calibration(config.calibration, logits, is_target)
    fitted = Estimator(
        mean,
        std,
        [(part.weight.detach().numpy().copy(), part.bias.detach().numpy().copy()) for part in last],
        numbers,
        accuracy,
        len(curve),
        stopped_by,
        curve,
        _calibration_errors(config.calibration, logits, is_target),
    )
    fitted.notes.extend(_warnings(fitted, fitted.scores(pool.features), config))
    return fitted


def _network(dim: int, config: EstimatorConfig, seed: int) -> tuple[torch.nn.Module, list[torch.nn.Linear]]:
    """The classifier, and its linear layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = torch.nn.Linear(dim, config.hidden or 1)
        layers = [first, torch.nn.Linear(config.hidden, 1)] if config.hidden else [first]
    if config.start == "zero":
        torch.nn.init.zeros_(layers[-1].weight)
        torch.nn.init.zeros_(layers[-1].bias)
    return torch.nn.Sequential(first, torch.nn.ReLU(), layers[1]) if config.hidden else first, layers


def _calibration_errors(
    method: Method, logits: NDArray[np.float32], is_target: NDArray[np.bool_]
) -> tuple[float, float]:
    """Without and with the calibration; halves of both sides take turns in fitting and judging."""
    part = np.concatenate([np.arange(n) % 2 for n in ((~is_target).sum(), is_target.sum())])
    if len({*zip(part.tolist(), is_target.tolist(), strict=True)}) < 4:
        return float("nan"), float("nan")
    plain = [calibration_error(sigmoid(logits[part == n]), is_target[part == n]) for n in (0, 1)]
    found = []
    for judged in (0, 1):
        fitted, _ = fit_calibration(method, logits[part != judged], is_target[part != judged])
        found.append(calibration_error(fitted(logits[part == judged].astype(np.float64)), is_target[part == judged]))
    return sum(plain) / 2, sum(found) / 2


def _warnings(fitted: Estimator, pool_scores: NDArray[np.float32], config: EstimatorConfig) -> list[str]:
    notes = []
    first = next((n for n, value in enumerate(fitted.curve, 1) if value >= config.stop_accuracy), None)
    if first is not None and first < EARLY_STEPS:
        chose = (
            f"the {fitted.steps} steps are min_steps" if fitted.steps == config.min_steps else "the rule chose nothing"
        )
        notes.append(
            f"degenerate: {config.stop_accuracy:.0%} accuracy after {first} of {fitted.steps} steps, so {chose}. "
            "The sides differ at a glance: look for a shortcut (text, image size)."
        )
    if fitted.stopped_by == "max_steps":
        notes.append(
            f"not reached: {fitted.accuracy:.1%} after {fitted.steps} steps (wanted {config.stop_accuracy:.0%}), "
            "pool and target look alike, or the features do not tell them apart."
        )
    if float(np.median(pool_scores)) < 0.01:
        notes.append(
            f"saturated: half of the pool scores below {float(np.median(pool_scores)):.3g}; fewer steps spread it."
        )
    return notes
