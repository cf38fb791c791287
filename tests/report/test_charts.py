"""Geometry of the charts, checked by what it must mean."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_midtrain.report.charts import clouds, histogram, line_chart, log_odds, nice_ticks, short, violin
from embodied_midtrain.report.summary import Curve


def points(path: str) -> np.ndarray:
    return np.array([[float(v) for v in pair.split()] for pair in re.split("[ML]", path.rstrip("Z")) if pair])


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_inside(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    slack = 1e-6 * (abs(low) + span)
    assert 1 <= len(ticks) <= 7
    assert all(low - slack <= t <= low + span + slack for t in ticks)


def test_steps_are_whole() -> None:
    chart = line_chart("loss", [("a", 1, Curve("loss", (0, 1, 2), (3.0, 2.0, 1.0)))])
    assert chart is not None and [tick.label for tick in chart.x_ticks] == ["0", "1", "2"]


def test_a_falling_curve_is_drawn_downwards_on_screen() -> None:
    chart = line_chart("loss", [("a", 1, Curve("loss", (0, 10, 20), (3.0, 2.0, 1.0)))])
    assert chart is not None and not chart.logarithmic
    xy = points(chart.lines[0].path)
    assert xy[:, 0].tolist() == [0, 50, 100]
    assert np.all(np.diff(xy[:, 1]) > 0) and xy.min() >= 0 and xy.max() <= 100


def test_a_curve_over_orders_of_magnitude_is_logarithmic() -> None:
    chart = line_chart("loss", [("a", 1, Curve("loss", (1, 2, 3), (100.0, 1.0, 0.01)))])
    assert chart is not None and chart.logarithmic
    assert np.allclose(np.diff(points(chart.lines[0].path)[:, 1]), 44.64, atol=0.1)


def test_values_that_are_not_finite_are_counted_and_left_out() -> None:
    chart = line_chart("loss", [("a", 1, Curve("loss", (1, 2, 3), (1.0, float("nan"), 2.0)))])
    assert chart is not None and chart.dropped == 1 and len(points(chart.lines[0].path)) == 2
    assert line_chart("loss", [("a", 1, Curve("loss", (1,), (float("inf"),)))]) is None


def test_long_curves_are_thinned_to_means() -> None:
    steps = tuple(range(10_000))
    chart = line_chart("loss", [("a", 1, Curve("loss", steps, tuple(float(s % 2) for s in steps)))])
    assert chart is not None
    drawn = [float(p.split(";")[3]) for p in chart.lines[0].points.split()]
    assert len(drawn) <= 300 and np.allclose(drawn, 0.5, atol=0.03)


def test_uneven_curves_are_refused() -> None:
    with pytest.raises(ValueError, match="2 steps and 1 values"):
        line_chart("loss", [("a", 1, Curve("loss", (1, 2), (1.0,)))])


def test_a_violin_is_widest_where_the_values_are() -> None:
    xy = points(violin(np.full(50, 80.0)))
    assert xy[np.argmin(xy[:, 1]), 0] == 80
    assert violin([]) == "" and violin([float("nan")]) == ""


def test_a_violin_does_not_fade_at_the_ends() -> None:
    xy = points(violin(np.linspace(0, 100, 1001)))
    upper = xy[: len(xy) // 2, 1]
    assert np.ptp(upper) < 2


def test_histogram_shares_do_not_depend_on_how_many() -> None:
    values = np.linspace(0, 1, 400)
    drawn = histogram(values, {"same": np.tile(values, 3), "high": values[300:]}, {"same": 1, "high": 2}, bins=4)
    assert drawn is not None
    assert np.allclose(points(drawn.pool), points(drawn.selections[0][2]), atol=0.2)
    high = points(drawn.selections[1][2])
    assert np.allclose(high[1:7, 1], 100) and high[8, 1] < 10


def test_log_odds() -> None:
    assert np.allclose(log_odds([0.5, 0.0, 1.0, 1 / (1 + np.e)]), [0, -12, 12, -1])


def test_the_map_keeps_its_shape_and_puts_the_target_on_top() -> None:
    found = clouds([0, 10, 5, np.nan], [0, 0, 1, 0], ["a", "a", "task", "a"], ["pool", "pool", "target", "pool"])
    assert [(c.source, c.kind, c.n) for c in found] == [("a", "pool", 2), ("task", "target", 1)]
    (x0, y0), (x1, y1) = (map(int, m) for m in re.findall(r"M(\d+) (\d+)h0", found[0].path))
    ((tx, ty),) = (map(int, m) for m in re.findall(r"M(\d+) (\d+)h0", found[1].path))
    assert y0 == y1 and abs((x1 - x0) - 10 * (y0 - ty)) <= 10 and abs(tx - (x0 + x1) / 2) <= 1
    assert clouds([np.nan], [0], ["a"], ["pool"]) == ()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.12345, "0.123"), (1.0, "1"), (31.25, "31.2"), (12345.6, "12,346"), (1e-6, "1.0e-06"), (np.nan, "–")],
)
def test_numbers_as_people_write_them(value: float, text: str) -> None:
    assert short(value) == text
