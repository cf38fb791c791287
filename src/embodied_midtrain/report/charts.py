"""Geometry of the page's charts.

Python computes shapes, the templates draw them: paths live in a box of 100 x 100 that is stretched to whatever
width there is (strokes are not scaled), and all text stands beside it in HTML. So a chart is as sharp and as
readable on a phone as on a wall, and no text of a data set is ever written into markup here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embodied_midtrain.report.summary import Curve

DRAWN_POINTS = 300
"""Longer curves are thinned to about this many points: more than a screen has to show."""


@dataclass(frozen=True, slots=True)
class Tick:
    """`at` in per cent of the axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    colour: int
    path: str
    points: str
    """What a reader sees on hovering: "x,y,step,value" for each drawn point, separated by blanks."""
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class LineChart:
    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    logarithmic: bool
    dropped: int
    """Values that are not finite, and so not drawn."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Shares per bin as stepped outlines: an area for the whole pool, a line for each selection."""

    pool: str
    selections: tuple[tuple[str, int, str], ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class Cloud:
    """The dots of one source on the map, as one path of zero-length strokes with round ends."""

    source: str
    kind: str
    n: int
    path: str


def short(value: float) -> str:
    """A number as people write it: three digits that matter."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return "–"
    if 0.001 <= abs(value) < 100_000:
        decimals = max(0, 2 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{decimals}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.1e}"


def nice_ticks(low: float, high: float, count: int = 5, *, least: float = 0.0) -> list[float]:
    """Round numbers within [low, high], about `count` of them, no closer than `least`."""
    if not high > low:
        return [low]
    rough = max((high - low) / count, least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def line_chart(title: str, curves: Sequence[tuple[str, int, Curve]]) -> LineChart | None:
    """Curves (name, colour, curve) over one pair of axes; None where there is nothing finite to draw.

    The y axis is logarithmic where values span more than a factor of 30: a loss that fell by that much is a
    flat line otherwise.
    """
    drawn, dropped = [], 0
    for name, colour, curve in curves:
        if len(curve.steps) != len(curve.values):
            raise ValueError(f"curve {curve.name!r} has {len(curve.steps)} steps and {len(curve.values)} values")
        steps, values = np.asarray(curve.steps, float), np.asarray(curve.values, float)
        finite = np.isfinite(values)
        dropped += int((~finite).sum())
        if finite.any():
            drawn.append((name, colour, *_thin(steps[finite], values[finite])))
    if not drawn:
        return None
    all_steps = np.concatenate([d[2] for d in drawn])
    all_values = np.concatenate([d[3] for d in drawn])
    logarithmic = bool(all_values.min() > 0 and all_values.max() > 30 * all_values.min())
    x_low, x_high = _widened(float(all_steps.min()), float(all_steps.max()))
    shown = np.log10(all_values) if logarithmic else all_values
    y_low, y_high = _padded(float(shown.min()), float(shown.max()))
    lines = []
    for name, colour, steps, values in drawn:
        x = 100 * (steps - x_low) / (x_high - x_low)
        y = 100 - 100 * ((np.log10(values) if logarithmic else values) - y_low) / (y_high - y_low)
        points = " ".join(
            f"{a:.2f},{b:.2f},{int(s)},{short(float(v))}" for a, b, s, v in zip(x, y, steps, values, strict=True)
        ).replace(",", ";")
        lines.append(Line(name, colour, polyline(x, y), points, short(float(values[0])), short(float(values[-1]))))
    ticks = _log_ticks(y_low, y_high) if logarithmic else nice_ticks(y_low, y_high, 4)
    positions = np.log10(ticks) if logarithmic else np.asarray(ticks)
    return LineChart(
        title,
        tuple(lines),
        tuple(Tick(100 * (t - x_low) / (x_high - x_low), short(t)) for t in nice_ticks(x_low, x_high, 5, least=1.0)),
        tuple(
            Tick(100 - 100 * (float(p) - y_low) / (y_high - y_low), short(t))
            for p, t in zip(positions, ticks, strict=True)
        ),
        logarithmic,
        dropped,
    )


def _thin(steps: NDArray, values: NDArray) -> tuple[NDArray, NDArray]:
    """Means of equal runs of points, so that a thinned curve shows the level and not chosen peaks."""
    width = math.ceil(len(steps) / DRAWN_POINTS)
    if width <= 1:
        return steps, values
    cuts = np.arange(0, len(steps), width)
    sizes = np.diff(np.append(cuts, len(steps)))
    return np.add.reduceat(steps, cuts) / sizes, np.add.reduceat(values, cuts) / sizes


def _widened(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _padded(low: float, high: float) -> tuple[float, float]:
    if not high > low:
        margin = abs(low) * 0.1 or 0.5
        return low - margin, high + margin
    return low - 0.06 * (high - low), high + 0.06 * (high - low)


def _log_ticks(low: float, high: float) -> list[float]:
    whole = [10.0**p for p in range(math.ceil(low), math.floor(high) + 1)]
    if len(whole) >= 3:
        return whole
    candidates = [m * 10.0**p for p in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    return [c for c in candidates if low <= math.log10(c) <= high]


def _finite(values: ArrayLike) -> NDArray:
    known: NDArray = np.asarray(values, float)
    return known[np.isfinite(known)]


def polyline(x: ArrayLike, y: ArrayLike) -> str:
    pairs = zip(np.asarray(x, float), np.asarray(y, float), strict=True)
    return "M" + "L".join(f"{a:.2f} {b:.2f}" for a, b in pairs)


def violin(values: ArrayLike, bandwidth: float = 3.0) -> str:
    """The outline of a Gaussian kernel density of percentiles (0-100), mirrored about the middle.

    Mass is reflected at both ends: percentiles cannot lie outside, and the density must not fade there.
    """
    known = _finite(values)
    if len(known) == 0:
        return ""
    grid = np.linspace(0, 100, 101)
    counts, _ = np.histogram(np.clip(known, 0, 100), bins=np.linspace(-0.5, 100.5, 102))
    weights = np.concatenate([counts, counts[::-1], counts[::-1]])
    centres = np.concatenate([grid, -grid[::-1], 200 - grid[::-1]])
    density = np.exp(-0.5 * ((grid[:, None] - centres[None]) / bandwidth) ** 2) @ weights
    half = 46 * density / density.max()
    return polyline(np.concatenate([grid, grid[::-1]]), np.concatenate([50 - half, (50 + half)[::-1]])) + "Z"


def histogram(
    pool: ArrayLike, selections: Mapping[str, ArrayLike], colours: Mapping[str, int], bins: int = 40
) -> Histogram | None:
    """Scores before and after selection, each as shares of its own number, over the pool's range."""
    before = _finite(pool)
    if len(before) == 0:
        return None
    low, high = _widened(float(before.min()), float(before.max()))
    edges = np.linspace(low, high, bins + 1)

    def shares(values: ArrayLike) -> NDArray:
        known = _finite(values)
        return np.histogram(np.clip(known, low, high), edges)[0] / max(1, len(known))

    heights = {name: shares(values) for name, values in selections.items()}
    whole = shares(before)
    top = 1.08 * max(float(h.max()) for h in (whole, *heights.values()))

    def steps(height: NDArray, closed: bool) -> str:
        x = np.repeat(100 * (edges - low) / (high - low), 2)
        y = 100 - 100 * np.concatenate([[0], np.repeat(height, 2), [0]]) / top
        return polyline(x, y) + ("Z" if closed else "")

    return Histogram(
        steps(whole, True),
        tuple((name, colours[name], steps(height, False)) for name, height in heights.items()),
        tuple(Tick(100 * (t - low) / (high - low), short(t)) for t in nice_ticks(low, high, 6)),
        tuple(Tick(100 - 100 * t / top, f"{100 * t:.3g} %") for t in nice_ticks(0, top, 4)),
    )


def log_odds(probabilities: ArrayLike, limit: float = 12.0) -> NDArray:
    """log(p / (1 - p)): the linear estimator's own scale, on which a saturated one still spreads out."""
    p = np.asarray(probabilities, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(np.log(p) - np.log1p(-p), -limit, limit)


def clouds(x: ArrayLike, y: ArrayLike, source: Sequence[str], kind: Sequence[str]) -> tuple[Cloud, ...]:
    """Dots in a box of 1000 x 1000, one path a source; the target's come last, so that they lie on top."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.any():
        return ()
    # One scale for both axes: distances on a map must mean the same in every direction.
    centre = [(float(v[finite].min()) + float(v[finite].max())) / 2 for v in (x, y)]
    half = max(float(np.ptp(x[finite])), float(np.ptp(y[finite])), 1e-9) / 2 * 1.04
    names = sorted(set(zip(kind, source, strict=True)), key=lambda pair: (pair[0] == "target", pair[1]))
    source_array, kind_array = np.asarray(source, object), np.asarray(kind, object)
    result = []
    for kind_name, source_name in names:
        chosen = finite & (source_array == source_name) & (kind_array == kind_name)
        column = np.rint(500 + 500 * (x[chosen] - centre[0]) / half).astype(int)
        row = np.rint(500 - 500 * (y[chosen] - centre[1]) / half).astype(int)
        path = "".join(f"M{a} {b}h0" for a, b in zip(column, row, strict=True))
        result.append(Cloud(source_name, kind_name, int(chosen.sum()), path))
    return tuple(result)
