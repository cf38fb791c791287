"""One look for all progress bars: on stderr, with a rate and the time left; quiet where nobody watches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True)


class Bar:
    """A running bar; `advance` it, and `say` what is worth reading beside it."""

    def __init__(self, progress: Progress, task: int) -> None:
        self._progress = progress
        self._task = task

    def advance(self, by: float = 1) -> None:
        self._progress.advance(self._task, by)  # type: ignore[arg-type]

    def say(self, note: str) -> None:
        self._progress.update(self._task, note=note)  # type: ignore[arg-type]


@contextmanager
def progress_bar(title: str, total: float | None, done: float = 0, shown: bool = True) -> Iterator[Bar]:
    """A bar of `total` steps, `done` of them already behind us when a stage goes on; shown by one process of a team."""
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal)) as progress:
        task = progress.add_task(title, total=total, completed=done, note="")  # type: ignore[arg-type]
        yield Bar(progress, task)
