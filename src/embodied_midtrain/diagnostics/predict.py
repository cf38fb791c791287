"""Which figure of a variant goes with its closed-loop success: `emt probe predict`.

Closed loop is what counts and what costs; a probe, the drift or the retention is had in minutes. Whether one of them
stands in for it is a question of ranks over the variants of a study, and of how many variants there are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import StageError, read_json, write_json
from embodied_midtrain.intervals import holm
from embodied_midtrain.proximity.ranking import mean_ranks, spearman

FILE = "figures.json"
FEWEST = 6
"""Variants: of fewer even a perfect order is too easily had by chance once several figures are looked at."""
EXACT = 7
"""Variants up to which all orders are counted."""
DRAWS = 2000


@dataclass(frozen=True)
class Variant:
    """One initialisation.

    Attributes:
        success: share of episodes solved, over all training seeds.
        figures: by name, such as "probe actions, layer 18", "drift weights" or "retention"; a figure may be missing.
    """

    name: str
    success: float
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Prediction:
    """How a figure goes with success.

    Attributes:
        figure: its name.
        variants: how many have it.
        spearman: rank correlation; NaN where the figure, or success, is the same for all.
        low, high: 95 % interval, variants drawn anew; NaN where there are too few.
        p: of a correlation as far from 0, by permutations; times the figures looked at (Holm).
        verdict: in words.
    """

    figure: str
    variants: int
    spearman: float
    low: float
    high: float
    p: float
    verdict: str


def predict(variants: Sequence[Variant], *, level: float = 0.05, seed: int = 0) -> list[Prediction]:
    """Every figure against success, the strongest first.

    Raises:
        StageError: where no variant has a figure, names come twice, or a success is no share.
    """
    names = [variant.name for variant in variants]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise StageError(f"variants {', '.join(twice)} are given more than once: give each its mean over seeds")
    if wrong := [v.name for v in variants if not 0 <= v.success <= 1]:
        raise StageError(f"the success of {', '.join(wrong)} is no share from 0 to 1")
    figures = list(dict.fromkeys(figure for variant in variants for figure in variant.figures))
    if not figures:
        raise StageError("no variant has a figure to predict success from")
    found = [_one(figure, variants, seed) for figure in figures]
    tested = [own for own in found if math.isfinite(own.p)]
    adjusted = dict(zip((own.figure for own in tested), holm([own.p for own in tested]), strict=True))
    said = [_judged(own, adjusted.get(own.figure, math.nan), level) for own in found]
    return sorted(said, key=lambda own: (not math.isfinite(own.spearman), -abs(own.spearman)))


def _one(figure: str, variants: Sequence[Variant], seed: int) -> Prediction:
    pairs = [(v.figures[figure], v.success) for v in variants if math.isfinite(v.figures.get(figure, math.nan))]
    count, nothing = len(pairs), math.nan
    x, y = (np.array(side, np.float64) for side in zip(*pairs, strict=True)) if pairs else (np.zeros(0),) * 2
    value = spearman(x, y) if count > 1 else nothing
    if count < FEWEST or not math.isfinite(value):
        return Prediction(figure, count, value, nothing, nothing, nothing, "")
    random = np.random.default_rng(seed)
    drawn = random.integers(count, size=(DRAWS, count))
    values = _spearmans(x[drawn], y[drawn])
    # A draw of one variant only, over and over, has no order.
    low, high = np.nanquantile(values, [0.025, 0.975])
    return Prediction(figure, count, value, float(low), float(high), _permuted(x, y, value, random), "")


def _spearmans(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row: [draws, variants] twice -> [draws]; NaN where a side has a single value."""

    def centred(values: NDArray[np.float64]) -> NDArray[np.float64]:
        above = values[:, :, None] > values[:, None, :]
        equal = values[:, :, None] == values[:, None, :]
        ranks = above.sum(2) + equal.sum(2) / 2
        return ranks - ranks.mean(1, keepdims=True)

    a, b = centred(x), centred(y)
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return found


def _permuted(x: NDArray[np.float64], y: NDArray[np.float64], value: float, random: np.random.Generator) -> float:
    a, b = mean_ranks(x), mean_ranks(y)
    if len(a) <= EXACT:
        orders = np.array(list(itertools.permutations(range(len(a)))))
    else:
        orders = np.concatenate(
            [np.arange(len(a))[None], random.permuted(np.tile(np.arange(len(a)), (DRAWS, 1)), axis=1)]
        )
    spread = a.std() * b.std() * len(a)
    others = ((b[orders] - b.mean()) @ (a - a.mean())) / spread
    return float((np.abs(others) >= abs(value) - 1e-9).mean())


def _judged(own: Prediction, p: float, level: float) -> Prediction:
    if not math.isfinite(own.spearman):
        verdict = "the same for all variants" if own.variants > 1 else "too few variants"
    elif own.variants < FEWEST:
        verdict = f"too few variants ({own.variants}; at least {FEWEST})"
    elif p < level and (own.low > 0 or own.high < 0):
        verdict = f"goes {'with' if own.spearman > 0 else 'against'} success"
    else:
        verdict = "cannot tell"
    return Prediction(own.figure, own.variants, own.spearman, own.low, own.high, p, verdict)


def read_variants(path: Path) -> list[Variant]:
    """Variants from JSON: {"variants": [{"name": ..., "success": ..., "figures": {...}}, ...]}.

    Raises:
        StageError: where it is not that.
    """
    rows = read_json(path)
    try:
        return [
            Variant(str(row["name"]), float(row["success"]), {k: float(v) for k, v in row["figures"].items()})
            for row in rows["variants"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StageError(
            f'{path} is no table of variants ({error!r}); wanted {{"variants": [{{"name": "...", "success": 0.5, '
            '"figures": {"probe actions": 0.3}}]}'
        ) from error


def predict_command(run: Path, out: Path | None = None) -> None:
    """Say which figure of a variant (a probe, drift, retention) goes with its closed-loop success, and how surely.

    Examples:
        emt probe predict --run runs/study --out runs/study/predictions.json
        emt probe predict --run figures.json

    Args:
        run: a JSON table of variants, or the folder of a study that holds one as figures.json.
        out: a file to write the result to, as JSON.
    """
    path = run / FILE if run.is_dir() else run
    found = predict(read_variants(path))
    if out is not None:
        write_json(out, {"predictions": [_plain(own) for own in found]})
    print_predictions(found)


def _plain(own: Prediction) -> dict[str, Any]:
    """JSON knows no NaN."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in vars(own).items()}


def print_predictions(found: Sequence[Prediction]) -> None:
    """A line for each figure."""
    print(f"{'figure':<34}{'variants':>9}{'Spearman':>10}  {'95 % interval':<18}{'p (Holm)':>9}  verdict")
    for own in found:
        span = f"{own.low:+.2f} to {own.high:+.2f}" if math.isfinite(own.low) else ""
        value = f"{own.spearman:+.2f}" if math.isfinite(own.spearman) else ""
        p = f"{own.p:.2g}" if math.isfinite(own.p) else ""
        print(f"{own.figure:<34}{own.variants:>9}{value:>10}  {span:<18}{p:>9}  {own.verdict}")
