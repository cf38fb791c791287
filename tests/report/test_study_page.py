"""A study's document and tables: what is said, what is not, what cannot be read as markup."""

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.cli import main
from embodied_midtrain.diagnostics.predict import Variant, read_variants
from embodied_midtrain.report.page import PAGE
from embodied_midtrain.report.study import FIGURES, STUDY, load_study_summary, save_study
from embodied_midtrain.report.study_page import study_report, study_view
from embodied_midtrain.report.study_table import finding, grids, markdown
from embodied_midtrain.report.study_terminal import print_study

from .study_fixture import TITLES, make_study


def test_the_document_comes_back_as_it_was(tmp_path: Path) -> None:
    made = make_study(tmp_path)
    assert load_study_summary(tmp_path) == made
    table = read_variants(tmp_path / FIGURES)
    assert [row.name for row in table] == ["base", "grounding", "spatial"], "one broke, one is a control"
    assert table[1] == Variant("grounding", 0.75, {"drift: text states": 0.9})
    (tmp_path / STUDY).write_text('{"name": "a", "cels": []}')
    with pytest.raises(StageError, match="did you mean 'cells'"):
        load_study_summary(tmp_path)


def test_the_table_is_the_papers_form(tmp_path: Path) -> None:
    success, tests, figures = grids(make_study(tmp_path))
    assert success.head == ("variant", "Sorting, mlp", "Sorting, flow", "Named, mlp", "Named, flow", "state")
    rows = {row[0]: row[1:] for row in success.rows}
    assert rows["off the shelf"][0].replace("\N{NO-BREAK SPACE}", " ") == "50 % (42–58) ±5.0"
    grounding = rows["<b>Grounding</b> | domain"]
    assert ["▲" in word for word in grounding[:4]] == [True, False, False, False]
    assert rows["broken"][:4] == ("–",) * 4 and "no sample can be used" in rows["broken"][4]
    assert "scratch (control)" in rows and "▼" in rows["scratch (control)"][0]
    assert len(tests.rows) == 12 and tests.rows[0][3] == "+25.0 (+17.0 to +33.0)" and tests.rows[0][5] == "0.008"
    assert figures.head == ("variant", "drift: text states") and figures.rows[-1] == ("broken", "–")


def test_a_control_is_in_the_tables_and_in_no_chart_of_measures(tmp_path: Path) -> None:
    view = study_view(make_study(tmp_path))
    assert {dot.variant for one in view.scatters for dot in one.dots} == {
        "off the shelf",
        TITLES["grounding"],
        "Spatial",
    }
    assert "scratch" in {figure.variant for figure in view.summary.figures}


def test_markdown_and_terminal_say_the_same(tmp_path: Path) -> None:
    made = make_study(tmp_path)
    text = markdown(made)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") - 1 in (2, 6, 9) for line in table), "a name must not open a column"
    assert "this benchmark can tell initialisations apart" in text and "4 of 5 variants are done" in text
    assert "drawn 12 times" in text and "vla-eval run --config x" in text
    console = Console(record=True, width=300)
    print_study(made, tmp_path, console)
    said = console.export_text()
    assert "<b>Grounding</b> | domain" in said and "emt serve policy" in said


def test_what_is_the_same_on_every_benchmark_is_told_once(tmp_path: Path) -> None:
    made = make_study(tmp_path)
    seen = made.figures[0]
    two = (replace(seen, benchmark="sorting"), replace(seen, benchmark="named"))
    *_, figures = grids(replace(made, figures=two))
    assert figures.head == ("variant", "drift: text states")
    other = {seed: value + 0.1 for seed, value in seen.by_seed.items()}
    *_, figures = grids(replace(made, figures=(two[0], replace(two[1], by_seed=other, mean=1.0))))
    assert figures.head == ("variant", "drift: text states, sorting", "drift: text states, named")


def test_what_a_study_says(tmp_path: Path) -> None:
    made = make_study(tmp_path)
    assert finding(made) == ("<b>Grounding</b> | domain is better than off the shelf on Sorting, mlp.", "clear")
    blind = tuple(replace(c, outcome="cannot tell") if c.variant == "scratch" else c for c in made.comparisons)
    assert finding(replace(made, comparisons=blind))[1] == "unclear", "nothing can be told from such a benchmark"
    nothing = tuple(replace(c, outcome="cannot tell") for c in made.comparisons)
    assert finding(replace(made, comparisons=nothing)) == (
        "None of 8 differences is more than noise at this budget.",
        "unclear",
    )
    assert finding(replace(made, scale=0.1))[1] == "none" and finding(replace(made, cells=()))[1] == "none"


def test_the_page_follows_the_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_study(tmp_path)
    assert main(["report", "--run", str(tmp_path)]) == 0
    page = tmp_path / "report" / PAGE
    text = page.read_text()
    assert "&lt;b&gt;Grounding&lt;/b&gt;" in text and "<b>Grounding" not in text
    before = page.stat().st_mtime_ns
    study_report(page.parent, study=tmp_path)
    assert page.stat().st_mtime_ns == before
    save_study(tmp_path, replace(made, name="another"))
    study_report(page.parent, study=tmp_path)
    assert "<title>another" in page.read_text()
