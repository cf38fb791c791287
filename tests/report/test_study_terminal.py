"""A study's tables where there is little room: whole numbers, and what each row is about."""

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from embodied_midtrain.report.study_table import Grid
from embodied_midtrain.report.study_terminal import abreast, print_study

from .study_fixture import make_study


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_breaks_no_number(tmp_path: Path, width: int) -> None:
    made = make_study(tmp_path)
    more = [replace(made.figures[0], name=f"text at {step}", mean=0.1 + step / 1000) for step in range(101, 110)]
    console = Console(record=True, width=width)
    print_study(replace(made, figures=tuple(more)), None, console)
    said = console.export_text()
    assert all(len(line) <= width for line in said.splitlines())
    assert all(f"│ 0.{n} " in said for n in range(201, 210)), "each figure is whole, in one of several tables"
    assert "│ 0.008 " in said and "difference," in said and "outcome" in said


def test_a_table_that_does_not_fit_says_in_each_part_what_its_rows_are() -> None:
    grid = Grid("Tests", ("variant", "against", "p", "outcome"), (("a", "b", "0.1", "worse"),), named_by=2)
    assert abreast(grid, 40) == [grid]
    first, second = abreast(grid, 24)
    assert first.title == "Tests (1 of 2)" and first.head == ("variant; against", "p")
    assert second.rows == (("a; b", "worse"),)
    assert len(abreast(grid, 5)) == 2, "a column stays whole, however little room there is"
