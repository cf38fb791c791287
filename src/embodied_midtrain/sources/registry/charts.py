"""Charts of small tables, drawn with matplotlib, and questions about them with exact answers."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from PIL import Image

from embodied_midtrain.extras import require

Kind = Literal["bar", "horizontal bar", "line", "pie", "scatter"]

_SIZES = ((3.36, 2.52), (3.36, 3.36), (3.0, 2.4), (3.36, 2.1))
"""Inches at 100 dots each: charts are drawn at the size at which they are kept, so that text stays sharp."""
_PALETTES = ("tab10", "Set2", "Dark2", "Paired", "Accent")


@dataclass(frozen=True)
class Data:
    """A table: `values[series][label]`.

    Attributes:
        title: over the chart.
        unit: at the value axis, with what is measured: "sales (thousands)".
        labels: of the rows; at the other axis.
        series: name -> one value a label; a single series is drawn without a legend.
    """

    title: str
    unit: str
    labels: tuple[str, ...]
    series: dict[str, tuple[float, ...]]


def number(value: float) -> str:
    """Without digits that say nothing: "12", "3.5"."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def kinds_for(data: Data) -> list[Kind]:
    """Which charts suit a table."""
    kinds: list[Kind] = ["bar", "line", "scatter"]
    if len(data.series) == 1:
        kinds.append("horizontal bar")
        if len(data.labels) <= 6 and min(*next(iter(data.series.values())), 1) > 0:
            kinds.append("pie")
    return kinds


def draw(data: Data, kind: Kind, rng: random.Random, *, written: bool = False) -> Image.Image:
    """The chart as an image, 210 to 336 px a side; colours, grid and size vary with `rng`.

    Args:
        written: bars carry their values as text.

    Raises:
        StageError: without matplotlib.
    """
    require("matplotlib", "pool")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = matplotlib.colormaps[rng.choice(_PALETTES)].colors  # type: ignore[attr-defined]
    start = rng.randrange(len(colours))
    paint = [colours[(start + i) % len(colours)] for i in range(max(len(data.labels), len(data.series)))]
    with matplotlib.rc_context({"font.size": 8, "axes.titlesize": 9, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=rng.choice(_SIZES), dpi=100, layout="tight")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _plot(axes, data, kind, paint)
        if written:
            for bars in axes.containers:
                axes.bar_label(bars, fmt=number, fontsize=6)  # type: ignore[arg-type]
            axes.margins(0.12)
        axes.set_title(data.title)
        if kind != "pie":
            along, across = (axes.xaxis, axes.yaxis) if kind == "horizontal bar" else (axes.yaxis, axes.xaxis)
            along.set_label_text(data.unit)
            if rng.random() < 0.5:
                axes.grid(axis="x" if kind == "horizontal bar" else "y", alpha=0.4)
            if kind != "horizontal bar" and sum(map(len, data.labels)) > 30:
                across.set_tick_params(rotation=40)
            if len(data.series) > 1:
                axes.legend(fontsize=7, framealpha=0.6)
        canvas.draw()
        return Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")


def _plot(axes: Any, data: Data, kind: Kind, paint: list[Any]) -> None:
    places = range(len(data.labels))
    if kind == "pie":
        axes.pie(next(iter(data.series.values())), labels=data.labels, colors=paint, textprops={"fontsize": 7})
        return
    if kind == "horizontal bar":
        axes.barh(places, next(iter(data.series.values())), color=paint[0], tick_label=data.labels)
        axes.invert_yaxis()
        return
    width = 0.8 / len(data.series)
    for i, (name, values) in enumerate(data.series.items()):
        if kind == "bar":
            axes.bar([p + i * width for p in places], values, width, label=name, color=paint[i])
        elif kind == "line":
            axes.plot(places, values, marker="o", markersize=3, label=name, color=paint[i])
        else:
            axes.scatter(places, values, s=18, label=name, color=paint[i])
    middle = (len(data.series) - 1) * width / 2 if kind == "bar" else 0
    axes.set_xticks([p + middle for p in places], data.labels)


Asked = tuple[str, str]


def ask(data: Data, kind: Kind, rng: random.Random, count: int, *, written: bool = False) -> list[Asked]:
    """Questions of different kinds about one chart, with their answers; ties are never asked about.

    Values are told exactly where they are written at the bars, else to two digits, as they can be read off.
    """
    makers: list[Callable[[Data, Kind, random.Random], Asked | None]] = [_extreme, _compare, _count, _kind, _title]
    makers += [partial(_value, written=written)] * 2 + ([_describe] if written else [])
    rng.shuffle(makers)
    asked = dict.fromkeys(found for make in makers if (found := make(data, kind, rng)) is not None)
    return list(asked)[:count]


def _pick(data: Data, rng: random.Random) -> tuple[str, str, tuple[float, ...]]:
    """A series, and how a question speaks of it (nothing where there is only one)."""
    name = rng.choice(list(data.series))
    return name, f" for {name}" if len(data.series) > 1 else "", data.series[name]


def _extreme(data: Data, kind: Kind, rng: random.Random) -> Asked | None:
    _, of, values = _pick(data, rng)
    high = rng.random() < 0.5
    best = max(values) if high else min(values)
    if values.count(best) > 1:
        return None
    word = "highest" if high else "lowest"
    if kind == "pie":
        word = "largest" if high else "smallest"
    label = data.labels[values.index(best)]
    asked = rng.choice(
        (
            f"Which label has the {word} value{of}?",
            f"Where is the value{of} {word}?",
            f"In this chart, what is {word}{of}?",
            f"Name the entry with the {word} {data.unit.split(' (')[0]}{of}.",
        )
    )
    return asked, rng.choice((label, f"{label}.", f"It is {label}."))


def _value(data: Data, kind: Kind, rng: random.Random, *, written: bool) -> Asked | None:
    if kind == "pie":
        return None
    _, of, values = _pick(data, rng)
    i = rng.randrange(len(values))
    asked = rng.choice(
        (
            f"What is the value of {data.labels[i]}{of}?",
            f"Read off {data.labels[i]}{of}.",
            f"How much does the chart show for {data.labels[i]}{of}?",
        )
    )
    if written:
        return asked, rng.choice((number(values[i]), f"{number(values[i])}.", f"It is {number(values[i])}."))
    return asked, f"About {float(f'{values[i]:.2g}'):g}."


def _compare(data: Data, kind: Kind, rng: random.Random) -> Asked | None:
    _, of, values = _pick(data, rng)
    i, j = rng.sample(range(len(values)), 2)
    # Nobody can tell bars that differ by a hair.
    if abs(values[i] - values[j]) < 0.08 * max(map(abs, values)):
        return None
    more = values[i] > values[j]
    asked = rng.choice(
        (
            f"Is {data.labels[i]} greater than {data.labels[j]}{of}?",
            f"Does {data.labels[i]} exceed {data.labels[j]}{of}?",
        )
    )
    return asked, rng.choice(("Yes.", "Yes, it is.") if more else ("No.", "No, it is smaller."))


def _count(data: Data, kind: Kind, rng: random.Random) -> Asked | None:
    if len(data.series) > 1 and rng.random() < 0.5:
        return rng.choice(("How many series does the legend name?", "How many groups are compared?")), str(
            len(data.series)
        )
    what = {"bar": "groups of bars" if len(data.series) > 1 else "bars", "horizontal bar": "bars", "pie": "slices"}
    asked = f"How many {what.get(kind, 'labels on the horizontal axis')} are there?"
    return asked, str(len(data.labels))


def _kind(data: Data, kind: Kind, rng: random.Random) -> Asked | None:
    said = {"scatter": "a scatter plot", "pie": "a pie chart", "line": "a line chart"}.get(kind, f"a {kind} chart")
    return rng.choice(("What type of chart is this?", "How are the data drawn?")), f"{said.capitalize()}."


def _title(data: Data, kind: Kind, rng: random.Random) -> Asked | None:
    return rng.choice(("What is the title of the chart?", "What is this chart about?")), f"{data.title}."


def _describe(data: Data, kind: Kind, rng: random.Random) -> Asked | None:
    values = next(iter(data.series.values()))
    if kind == "pie" or len(data.series) > 1 or len(values) > 7:
        return None
    rows = ", ".join(f"{label} {number(value)}" for label, value in zip(data.labels, values, strict=True))
    return rng.choice(("List the values in the chart.", "Turn the chart into a table.")), f"{data.title}: {rows}."
