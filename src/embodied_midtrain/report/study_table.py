"""A study's tables: variants by benchmarks and heads, as words and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from embodied_midtrain.report.answer import percent
from embodied_midtrain.report.charts import short
from embodied_midtrain.report.study import StudyCell, StudyComparison, StudyFigure, StudySummary

MARKS = {"better": "▲", "worse": "▼", "cannot tell": ""}
MOST_NAMED = 3
"""Findings that a headline has room for."""
LEGEND = "▲ ▼ better or worse than what it is tested against, by more than noise after correction for all tests (Holm)."


@dataclass(frozen=True)
class Grid:
    """A table as words."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    named_by: int = 1
    """How many of the first columns say what a row is about."""


def grids(summary: StudySummary) -> list[Grid]:
    """Success, the tests, and where there are measures, their figures."""
    return [success(summary), *filter(None, [tests(summary), figures(summary)])]


def success(summary: StudySummary) -> Grid:
    columns = summary.columns()
    rows = []
    for variant in summary.variants:
        cells = [summary.cell(variant.name, benchmark, head) for benchmark, head, _ in columns]
        beside = [summary.comparison(variant.name, benchmark, head) for benchmark, head, _ in columns]
        words = [_success(cell, test) for cell, test in zip(cells, beside, strict=True)]
        state = variant.state if not variant.why else f"{variant.state}: {variant.why}"
        title = variant.title + (" (control)" if variant.control else "")
        rows.append((title, *words, "" if variant.state == "done" else state))
    head = ("variant", *(title for _, _, title in columns), "state")
    if all(not row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return Grid("Success in closed loop, 95 % interval, spread over training seeds", head, tuple(rows))


def _success(cell: StudyCell | None, test: StudyComparison | None) -> str:
    if cell is None:
        return "–"
    span = f"{percent(cell.all.success)} ({percent(cell.all.low)[:-2]}–{percent(cell.all.high)[:-2]})"
    words = [span, MARKS[test.outcome] if test else ""]
    words.append(f"±{100 * cell.spread:.1f}" if cell.spread is not None else "")
    words.append(f"length {cell.length:.3f}" if cell.length is not None else "")
    words.append(f"[{cell.all.note}]" if cell.all.note else "")
    return " ".join(word for word in words if word)


def tests(summary: StudySummary) -> Grid | None:
    if not summary.comparisons:
        return None
    titles = {(benchmark, head): title for benchmark, head, title in summary.columns()}
    rows = [
        (
            summary.title(c.variant),
            summary.title(c.against),
            titles[c.benchmark, c.head],
            f"{100 * c.difference:+.1f} ({100 * c.low:+.1f} to {100 * c.high:+.1f})",
            f"{c.p:.2g}",
            f"{c.p_adjusted:.2g}",
            c.outcome,
            ", ".join(f"{100 * value:+.0f}" for value in c.by_seed.values()) if len(c.by_seed) > 1 else "",
            str(c.pairs),
        )
        for c in summary.comparisons
    ]
    head = ("variant", "against", "on", "difference, points", "p", "p (Holm)", "outcome", "by seed", "pairs")
    return Grid("Paired tests on the same episodes of the same seeds", head, tuple(rows), named_by=3)


def figures(summary: StudySummary) -> Grid | None:
    if not summary.figures:
        return None
    kinds: dict[tuple[str, str, str], dict[str, dict[str, StudyFigure]]] = {}
    for f in summary.figures:
        kinds.setdefault((f.measure, f.name, f.head), {}).setdefault(f.benchmark, {})[f.variant] = f
    heads, values = [], []
    for (measure, name, head), on in kinds.items():
        # One policy may play several benchmarks: what was measured of it is told once, without their names.
        seen = [{variant: f.by_seed for variant, f in found.items()} for found in on.values()]
        same = len(seen) > 1 and all(one == seen[0] for one in seen)
        for benchmark, found in list(on.items())[: 1 if same else None]:
            heads.append(f"{measure}: {', '.join(word for word in (name, '' if same else benchmark, head) if word)}")
            values.append(found)
    rows = [
        (v.title, *(short(found[v.name].mean) if v.name in found else "–" for found in values))
        for v in summary.variants
    ]
    return Grid("Measured beside it, mean over training seeds", ("variant", *heads), tuple(rows))


def markdown(summary: StudySummary) -> str:
    """The tables as one document."""
    parts = [f"# {summary.name}", summary.about, *remarks(summary)]
    for grid in grids(summary):
        parts += [f"## {grid.title}", _lines(grid)]
        if grid.head[-1] != "pairs" and any(mark and mark in _lines(grid) for mark in MARKS.values()):
            parts.append(LEGEND)
    parts += ["## Variants", *(f"- {v.title}: {' → '.join(v.pathway)}" for v in summary.variants)]
    if summary.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in summary.notes)]
    if summary.commands:
        parts += ["## To be played by vla-eval", "```\n" + "\n".join(summary.commands) + "\n```"]
    return "\n\n".join(part for part in parts if part) + "\n"


def finding(summary: StudySummary) -> tuple[str, Literal["clear", "unclear", "none"]]:
    """What the study says, and how sure that is: only what is more than noise after all tests is named."""
    if not summary.cells:
        return "No answer yet: no policy has been rolled out.", "none"
    if summary.scale != 1:
        return "A rehearsal: the study runs from end to end, its figures say nothing.", "none"
    controls = {v.name for v in summary.variants if v.control}
    tested = [c for c in summary.comparisons if c.variant not in controls]
    if not tested:
        return "There is nothing to compare yet.", "none"
    titles = {(benchmark, head): title for benchmark, head, title in summary.columns()}
    found = []
    for outcome in ("better", "worse"):
        for row in tested:
            if row.outcome == outcome:
                where = f" on {titles[row.benchmark, row.head]}" if len(titles) > 1 else ""
                found.append(f"{summary.title(row.variant)} is {outcome} than {summary.title(row.against)}{where}")
    if not found:
        return f"None of {len(tested)} differences is more than noise at this budget.", "unclear"
    more = f", and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    headline = f"{'; '.join(found[:MOST_NAMED])}{more}."
    apart = [c for c in summary.comparisons if c.variant in controls]
    blind = apart and not any(c.outcome == "worse" for c in apart)
    return headline[:1].upper() + headline[1:], "unclear" if blind else "clear"


def remarks(summary: StudySummary) -> list[str]:
    """What is to be known before any figure."""
    rows = []
    if summary.scale != 1:
        rows.append(
            f"Every count was multiplied by {summary.scale:g}: this checks the study from end to end and says nothing "
            "about success."
        )
    controls = {v.name for v in summary.variants if v.control}
    for row in summary.comparisons:
        if row.variant in controls:
            where = next(title for b, h, title in summary.columns() if (b, h) == (row.benchmark, row.head))
            can = "can" if row.outcome == "worse" else "cannot"
            rows.append(f"{where}: this benchmark {can} tell initialisations apart at this budget. {row.verdict}")
    done = sum(v.state == "done" for v in summary.variants)
    if done < len(summary.variants):
        rows.append(f"{done} of {len(summary.variants)} variants are done.")
    return rows


def _lines(grid: Grid) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    ruler = "|" + "|".join("---" for _ in grid.head) + "|"
    return "\n".join([line(grid.head), ruler, *(line(row) for row in grid.rows)])
