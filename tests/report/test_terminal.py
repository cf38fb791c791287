"""The end of a run in a terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from embodied_midtrain.report.summary import Summary, load_summary
from embodied_midtrain.report.terminal import print_summary


def printed(summary: Summary, page: Path | None = None, width: int = 110) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    print_summary(summary, page, console)
    return console.export_text()


def test_variants_by_tasks_the_answer_and_the_page(run: Path, tmp_path: Path) -> None:
    text = printed(load_summary(run), tmp_path / "report.html")
    row = next(line for line in text.splitlines() if "off the shelf" in line)
    assert all(cell in row for cell in ("11/20", "17/20", "18/20", "4/20", "62\N{NO-BREAK SPACE}%"))
    assert "Mid-trained on selected is ahead" in text
    assert f"Report: {tmp_path / 'report.html'}" in text


def test_names_with_brackets_are_printed_as_they_are(run: Path) -> None:
    summary = load_summary(run)
    odd = replace(summary, variants=tuple(replace(v, title="[bold]x[/nope]") for v in summary.variants))
    assert "[bold]x[/nope]" in printed(odd)


def test_no_name_of_a_task_is_cut(run: Path) -> None:
    summary = load_summary(run)
    long = replace(summary, rollouts=tuple(replace(r, task=f"{r.task}-topdown-wall-v3") for r in summary.rollouts))
    assert "…" not in printed(long, width=70)


def test_a_task_that_was_not_run_says_so(run: Path) -> None:
    summary = load_summary(run)
    assert "not run" in printed(replace(summary, rollouts=summary.rollouts[:-1]))


def test_a_run_without_rollouts() -> None:
    assert "No answer yet" in printed(Summary("begun", faults=("demos: no rendering",)))
