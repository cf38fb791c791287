"""A study's page: success by variant, the tests, every table, what it cost; one self-contained file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embodied_midtrain.artifacts import Artifact, fingerprint_of, open_stage, to_plain, write_atomic
from embodied_midtrain.report.charts import Tick, nice_ticks, short
from embodied_midtrain.report.page import PAGE, draw, drawn_by
from embodied_midtrain.report.study import (
    StudyCell,
    StudyComparison,
    StudyFigure,
    StudySummary,
    load_study_summary,
)
from embodied_midtrain.report.study_table import LEGEND, Grid, finding, grids, remarks

SECTIONS = (
    ("results", "Success"),
    ("differences", "Differences"),
    ("measures", "Measures"),
    ("tables", "Tables"),
    ("variants", "Variants"),
    ("run", "Run"),
)


@dataclass(frozen=True)
class Column:
    """A benchmark with a head: its cells and tests, in the order of the variants."""

    title: str
    cells: tuple[StudyCell, ...]
    comparisons: tuple[StudyComparison, ...]
    widest: float
    """The largest end of any test's interval: the scale of its chart."""


@dataclass(frozen=True)
class Dot:
    variant: str
    colour: int
    x: float
    """Per cent of the axis; y as well, from above."""
    y: float
    said: str


@dataclass(frozen=True)
class Scatter:
    """A measured figure against success: one dot a variant."""

    title: str
    on: str
    dots: tuple[Dot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class StudyView:
    """Everything that the page shows."""

    summary: StudySummary
    headline: str
    tone: str
    remarks: tuple[str, ...]
    titles: dict[str, str]
    colours: dict[str, int]
    columns: tuple[Column, ...]
    scatters: tuple[Scatter, ...]
    grids: tuple[Grid, ...]
    legend: str


def study_report(out: Path, *, study: Path) -> Artifact:
    """Write OUT/report.html from STUDY/study.json; an older page is replaced without asking.

    Raises:
        StageError: where there is no document, or it does not fit this version's types.
    """
    summary = load_study_summary(study)
    inputs: dict[str, Artifact | str] = {"study": fingerprint_of(to_plain(summary)), "drawn by": drawn_by()}
    with open_stage(out, "report", {}, inputs, overwrite=True) as stage:
        if stage.done:
            return stage.artifact()
        page = draw("study.html.j2", view=study_view(summary), sections=SECTIONS)
        write_atomic(stage.file(PAGE), page)
        return stage.finish({"bytes": len(page.encode())})


def study_view(summary: StudySummary) -> StudyView:
    headline, tone = finding(summary)
    colours = {v.name: n for n, v in enumerate(summary.variants)}
    return StudyView(
        summary,
        headline,
        tone,
        tuple(remarks(summary)),
        {v.name: v.title for v in summary.variants},
        colours,
        tuple(_column(summary, *column) for column in summary.columns()),
        tuple(_scatters(summary, colours)),
        tuple(grids(summary)),
        LEGEND,
    )


def _column(summary: StudySummary, benchmark: str, head: str, title: str) -> Column:
    cells = [summary.cell(v.name, benchmark, head) for v in summary.variants]
    tests = [summary.comparison(v.name, benchmark, head) for v in summary.variants]
    compared = tuple(one for one in tests if one is not None)
    widest = max([0.05, *(max(abs(c.low), abs(c.high)) for c in compared)])
    return Column(title, tuple(cell for cell in cells if cell is not None), compared, widest)


def _scatters(summary: StudySummary, colours: dict[str, int]) -> list[Scatter]:
    """Every figure against success, on each benchmark and head that it may speak of; of what one may choose from."""
    found = []
    controls = {v.name for v in summary.variants if v.control}
    for kind in dict.fromkeys((f.measure, f.name, f.benchmark, f.head) for f in summary.figures):
        figures = [f for f in summary.figures if (f.measure, f.name, f.benchmark, f.head) == kind]
        for benchmark, head, title in summary.columns():
            if figures[0].benchmark and (figures[0].benchmark, figures[0].head) != (benchmark, head):
                continue
            pairs = [
                (figure, cell)
                for figure in figures
                if figure.variant not in controls
                and (cell := summary.cell(figure.variant, benchmark, head)) is not None
            ]
            if len(pairs) > 1:
                found.append(_scatter(summary, f"{kind[0]}: {kind[1]}", title, pairs, colours))
    return found


def _scatter(
    summary: StudySummary, title: str, on: str, pairs: Sequence[tuple[StudyFigure, StudyCell]], colours: dict[str, int]
) -> Scatter:
    values = [figure.mean for figure, _ in pairs]
    margin = 0.06 * (max(values) - min(values)) or abs(values[0]) * 0.1 or 0.5
    low, high = min(values) - margin, max(values) + margin
    dots = tuple(
        Dot(
            summary.title(figure.variant),
            colours[figure.variant],
            100 * (figure.mean - low) / (high - low),
            100 - 100 * cell.all.success,
            f"{summary.title(figure.variant)}: {short(figure.mean)}, {100 * cell.all.success:.0f} %",
        )
        for figure, cell in pairs
    )
    x_ticks = tuple(Tick(100 * (t - low) / (high - low), short(t)) for t in nice_ticks(low, high, 5))
    return Scatter(title, on, dots, x_ticks, tuple(Tick(100 - t, f"{t} %") for t in (0, 25, 50, 75, 100)))
