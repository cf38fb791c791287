"""A study's tables in a terminal, however narrow: no word, and no number, is broken where there is another way."""

from __future__ import annotations

from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from embodied_midtrain.report.study import StudySummary
from embodied_midtrain.report.study_table import Grid, grids, remarks

BORDERS = 3
"""Cells that a column takes beside its words."""


def abreast(grid: Grid, width: int) -> list[Grid]:
    """The table in as many parts as have room for whole words side by side; each says what its rows are about."""
    if sum(_words(grid)) + BORDERS * len(grid.head) >= width:
        grid = _named_at_once(grid)
    first, *rest = (least + BORDERS for least in _words(grid))
    parts: list[list[int]] = [[]]
    left = room = width - 1 - first
    for column, needed in enumerate(rest, start=1):
        if parts[-1] and needed > left:
            parts.append([])
            left = room
        parts[-1].append(column)
        left -= needed
    if len(parts) == 1:
        return [grid]
    return [
        Grid(
            f"{grid.title} ({n} of {len(parts)})",
            (grid.head[0], *(grid.head[c] for c in part)),
            tuple((row[0], *(row[c] for c in part)) for row in grid.rows),
        )
        for n, part in enumerate(parts, start=1)
    ]


def _named_at_once(grid: Grid) -> Grid:
    """What a row is about in one column."""
    n = grid.named_by
    head, *rows = (("; ".join(line[:n]), *line[n:]) for line in (grid.head, *grid.rows))
    return Grid(grid.title, head, tuple(rows))


def _words(grid: Grid) -> list[int]:
    """How much room the longest word of each column takes."""
    columns = zip(grid.head, *grid.rows, strict=True)
    return [max((cell_len(word) for line in column for word in line.split()), default=1) for column in columns]


def _lines(grid: Grid) -> list[int]:
    """How much its longest line."""
    return [max(map(cell_len, column)) for column in zip(grid.head, *grid.rows, strict=True)]


def _table(grid: Grid, width: int) -> Table:
    """No wider than `width`: where its words have room, none is broken, and what is left goes to the longest lines."""
    table = Table(title=Text(grid.title), title_justify="left")
    widths, lines = _words(grid), _lines(grid)
    left = width - 1 - sum(widths) - BORDERS * len(widths)
    for _ in range(max(left, 0)):
        missing = [most - now for most, now in zip(lines, widths, strict=True)]
        if max(missing) == 0:
            break
        widths[missing.index(max(missing))] += 1
    for name, wide in zip(grid.head, widths, strict=True):
        table.add_column(Text(name), overflow="fold", width=None if left < 0 else wide)
    for row in grid.rows:
        # Text, not markup: names come from study files.
        table.add_row(*(Text(cell) for cell in row))
    return table


def print_study(summary: StudySummary, page: Path | None = None, console: Console | None = None) -> None:
    """Print the tables, and where the page is."""
    console = console or Console()
    for grid in (part for whole in grids(summary) for part in abreast(whole, console.width)):
        console.print(_table(grid, console.width))
    for line in remarks(summary):
        console.print(Text(line, style="yellow"))
    for note in summary.notes:
        console.print(Text(f"note: {note}"))
    if summary.commands:
        console.print(Text("evaluate these by vla-eval, and give this command again:"))
        for command in summary.commands:
            console.print(Text(f"  {command}"), soft_wrap=True)
    if page is not None:
        console.print(Text(f"Report: {page.resolve()}"), soft_wrap=True)
