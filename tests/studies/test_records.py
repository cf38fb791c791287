"""A study's records: its tables without its folders, nothing done twice, several machines' joined, faults named."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.cli import main
from embodied_midtrain.report.study import StudySummary
from embodied_midtrain.studies.outline import outline
from embodied_midtrain.studies.plan import plan
from embodied_midtrain.studies.records import on_record, read_records
from embodied_midtrain.studies.run import house_of, run_study, study_so_far
from embodied_midtrain.studies.study import Measure, Study
from tests.studies import fakes as fake

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fakes")]


def measured(study: Study, **figures: str) -> Study:
    """With a measure, and one that only prepares another."""
    figures = {"far": "drift.json:steps.1.far", "none": "drift.json:word"} | figures
    measures = {
        "prepared": Measure(stage="drift", inputs={"base": "base"}, settings={"seed": 7}),
        "drift": Measure(stage="drift", inputs={"base": "base", "after": "prepared"}, figures=figures),
    }
    return replace(study, measures=measures)


def found(summary: StudySummary) -> tuple[Any, ...]:
    """What tables are drawn from."""
    return summary.state, summary.variants, summary.cells, summary.comparisons, summary.figures


@pytest.fixture(scope="module")
def told(whole: tuple[Study, Path]) -> tuple[StudySummary, Path]:
    """What a whole study has found, and the records of it."""
    study, out = whole
    records = out.parent / "records" / "toy.jsonl"
    return run_study(study, out, records=records), records


def test_the_tables_come_from_the_records_alone(
    whole: tuple[Study, Path], told: tuple[StudySummary, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _ = whole
    full, records = told
    before = records.read_bytes()
    with fake.heard(monkeypatch) as done:
        again = run_study(study, tmp_path / "empty", records=records)
        so_far = study_so_far(study, tmp_path / "other", records=records)
    assert done == [] and found(again) == found(full) == found(so_far)
    assert records.read_bytes() == before and again.stages == ()
    (note,) = (one for one in again.notes if "on record" in one)
    assert note.startswith("12 results are not of this folder but on record: version ")
    assert not any("on record" in one for one in full.notes)


def test_only_what_is_not_on_record_is_done_and_added(
    whole: tuple[Study, Path], told: tuple[StudySummary, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _ = whole
    full, records = told
    lines = records.read_text().splitlines()
    (at,) = (n for n, line in enumerate(lines) if json.loads(line)["label"] == "mid, seed 1, stage, fast")
    half = tmp_path / "half.jsonl"
    half.write_text("\n".join(lines[:at] + lines[at + 1 :]))  # no new line at the end, as an editor may leave it
    whole_plan, house = plan(study), house_of(study, tmp_path / "out")
    said = outline(whole_plan, (), house, on_record(whole_plan, read_records(half)))
    with fake.heard(monkeypatch) as done:
        again = run_study(study, tmp_path / "out", records=half)
    assert {row["key"] for row in said["stages"]} == set(done) and said["on_record"] == 11
    assert sorted(key.split("-")[0] for key in done) == ["compose", "finetune", "midtrain", "rollout"]
    assert found(again) == found(full)
    assert sorted(half.read_text().splitlines()) == sorted(lines)


def test_two_machines_records_are_joined(whole: tuple[Study, Path], tmp_path: Path) -> None:
    study, out = whole
    parts = []
    for seed in (0, 1):
        run_study(replace(study, training_seeds=(seed,)), tmp_path / str(seed), records=tmp_path / f"{seed}.jsonl")
        parts.append((tmp_path / f"{seed}.jsonl").read_text())
    both = tmp_path / "both.jsonl"
    both.write_text("".join(parts))
    assert found(study_so_far(study, tmp_path / "new", records=both)) == found(study_so_far(study, out))


def test_figures_are_on_record_and_a_new_one_is_measured(
    whole: tuple[Study, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, before = measured(whole[0]), whole[1]
    records = tmp_path / "records.jsonl"
    shutil.copytree(before, tmp_path / "out")
    full = run_study(study, tmp_path / "out", records=records)
    assert {(f.name, f.variant) for f in full.figures} >= {("far", "mid")}
    with fake.heard(monkeypatch) as done:
        again = run_study(study, tmp_path / "empty", records=records)
    assert done == [] and found(again) == found(full)
    wider = measured(whole[0], more="drift.json:steps.0.far")
    with fake.heard(monkeypatch) as done:
        more = run_study(wider, tmp_path / "empty", records=records)
    # No rollout: what the measure needs, and no more.
    assert {key.split("-")[0] for key in done} == {"compose", "midtrain", "finetune", "drift"}
    assert {f.name for f in more.figures} == {"far", "more"} and more.cells == full.cells
    # The last line of a stage counts.
    assert found(study_so_far(wider, tmp_path / "new", records=records)) == found(more)


@pytest.mark.parametrize(
    "bad",
    [
        "no JSON",
        "[]",
        '{"key": "rollout-1"}',
        '{"key": "rollout-1", "label": "a", "colour": "red"}',
        '{"key": "rollout-1", "label": "a", "episodes": [["push", 0, 0, "s", true]]}',
        '{"key": "rollout-1", "label": "a", "episodes": [["push", 0, 0, "s", "yes", 5]]}',
        '{"key": "rollout-1", "label": "a", "episodes": [["push", 0, 0, "s", 1, 5]]}',
        '{"key": "rollout-1", "label": "a", "episodes": [["push", true, 0, "s", true, 5]]}',
        '{"key": "rollout-1", "label": "a", "episodes": [[1, 0, 0, "s", true, 5]]}',
        '{"key": "drift-1", "label": "a", "figures": {"drift.json:far": NaN}}',
    ],
)
def test_a_line_that_is_no_record_is_named(
    bad: str, told: tuple[StudySummary, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(f"{told[1].read_text()}\n{bad}\n")
    with pytest.raises(StageError, match="line 14 is no record of a study"):
        read_records(file)
    study = told[1].parent.parent / "toy.yaml"
    assert main(["study", str(study), "--out", str(tmp_path / "out"), "--records", str(file)]) == 1
    assert "line 14 is no record of a study" in capsys.readouterr().err


def test_a_records_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / "bytes.jsonl"):
        with pytest.raises(StageError, match="cannot be read as a study's records"):
            read_records(path)
    assert read_records(tmp_path / "none.jsonl") == {}


def test_a_file_that_is_not_there_yet_is_said(
    whole: tuple[Study, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = str(tmp_path / "mispelt.jsonl")
    study = str(whole[1].parent / "toy.yaml")
    assert main(["study", study, "--out", str(tmp_path / "out"), "--dry-run", "--records", name]) == 0
    assert f"{name} is new: nothing is on record yet" in capsys.readouterr().err
