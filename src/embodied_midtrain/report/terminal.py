"""The end of a run in a terminal: variants by tasks, the answer, where the page is."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from embodied_midtrain.report.answer import alone, answer, percent, title_of
from embodied_midtrain.report.summary import Rollouts, Summary, VariantResult

STYLES = {"clear": "bold green", "unclear": "bold yellow", "none": "bold"}


def print_summary(summary: Summary, page: Path | None = None, console: Console | None = None) -> None:
    """Print what the run found; `page` is the report, where there is one."""
    console = console or Console()
    if summary.rollouts:
        console.print(success_table(summary))
    for one in summary.benchmarks:
        if one.rollouts:
            console.print(success_table(alone(summary, one)))
    found = answer(summary)
    # Text, not markup: names come from recipes, and brackets in them are no styles.
    console.print(Text(found.headline, style=STYLES[found.tone]))
    for sentence in found.sentences:
        console.print(Text(f"  {sentence}"))
    for fault in summary.faults:
        console.print(Text(f"  note: {fault}", style="yellow"))
    if page is not None:
        # A path must stay in one piece, so that it can be clicked or copied.
        console.print(Text(f"Report: {page.resolve()}"), soft_wrap=True)


def success_table(summary: Summary) -> Table:
    """Successes of episodes with intervals, per cent: one row a variant, one column a task."""
    tasks = list(dict.fromkeys(r.task for r in summary.rollouts))
    variants = dict.fromkeys([*(v.variant for v in summary.variants), *(r.variant for r in summary.rollouts)])
    table = Table(title=Text(f"Success in closed loop: {summary.benchmark or summary.name}"), title_justify="left")
    # A name that is cut may be another's: it goes on in the next line.
    table.add_column("variant", overflow="fold")
    for task in tasks:
        table.add_column(Text(task), justify="right", overflow="fold")
    table.add_column("all tasks", justify="right", style="bold")
    cells = {(r.variant, r.task): _cell(r) for r in summary.rollouts}
    overall = {v.variant: _overall(v) for v in summary.variants}
    for variant in variants:
        row = [cells.get((variant, task), "not run") for task in tasks]
        table.add_row(Text(title_of(summary, variant)), *row, overall.get(variant, "–"))
    return table


def _overall(result: VariantResult) -> str:
    seeds = f"\nseeds {', '.join(percent(share)[:-2] for share in result.by_seed)}" if result.by_seed else ""
    length = "" if result.length is None else f"\nlength {result.length:.3f}"
    return f"{percent(result.success)}\n{percent(result.low)[:-2]}–{percent(result.high)}{seeds}{length}"


def _cell(result: Rollouts) -> str:
    return f"{result.successes}/{result.episodes}\n{percent(result.low)[:-2]}–{percent(result.high)}"
