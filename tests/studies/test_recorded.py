"""The results that the docs tell are what the records say: each table's rows, made again from them."""

from pathlib import Path

import pytest

from embodied_midtrain.report.study import StudyCell, StudySummary
from embodied_midtrain.studies.records import read_records
from embodied_midtrain.studies.run import study_so_far
from embodied_midtrain.studies.study import load_study

pytestmark = pytest.mark.slow
DOCS = Path(__file__).parents[2] / "docs"
RECORDS = sorted((DOCS / "records").glob("*.jsonl"))


def signed(points: float) -> str:
    return "0.0" if abs(points) < 0.05 else f"{points:+.1f}".replace("-", "−")


def probability(p: float) -> str:
    """With two digits, as the docs write it."""
    return "1" if p >= 0.995 else "< 1e-20" if p < 1e-20 else f"{p:.2g}".removeprefix("0")


def row(summary: StudySummary, cell: StudyCell) -> str:
    """A line of a table: successes, share with interval, by seed, against the baseline."""
    words = [
        summary.title(cell.variant),
        f"{cell.all.successes} of {cell.all.episodes}",
        f"{100 * cell.all.success:.0f} % ({100 * cell.all.low:.0f}–{100 * cell.all.high:.0f})",
        ", ".join(f"{100 * share:.0f}" for share in cell.by_seed.values()),
    ]
    test = summary.comparison(cell.variant, cell.benchmark, cell.head)
    if test is not None:
        span = f"{signed(100 * test.low)} to {signed(100 * test.high)}"
        control = any(v.control for v in summary.variants if v.name == cell.variant)
        holm = "" if control else f", Holm {probability(test.p_adjusted)}"
        words.append(f"{signed(100 * test.difference)} ({span}), p {probability(test.p)}{holm}")
    else:
        words.append("")
    return f"| {' | '.join(words)} |".replace("  ", " ")


@pytest.mark.parametrize("records", RECORDS, ids=lambda path: path.stem)
def test_the_docs_tables_are_what_is_on_record(records: Path, tmp_path: Path) -> None:
    summary = study_so_far(load_study(records.stem), tmp_path, records=records)
    text = (DOCS / "results.md").read_text()
    missing = [line for line in (row(summary, cell) for cell in summary.cells) if line not in text]
    assert summary.cells and missing == []
    assert f"--records docs/records/{records.name}" in text


@pytest.mark.parametrize("records", RECORDS, ids=lambda path: path.stem)
def test_what_is_on_record_is_of_the_study_as_it_is(records: Path, tmp_path: Path) -> None:
    """A setting that changes renames a stage: its line would stay behind and say nothing."""
    summary = study_so_far(load_study(records.stem), tmp_path, records=records)
    (note,) = (one for one in summary.notes if "on record" in one)
    assert int(note.split()[0]) == len(read_records(records))
