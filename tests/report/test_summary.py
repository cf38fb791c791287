"""The document of a run, there and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.report.summary import Summary, load_summary, save_summary

from .fixture import make_run


def test_there_and_back(tmp_path: Path) -> None:
    summary = make_run(tmp_path / "run")
    assert load_summary(tmp_path / "run") == summary


def test_what_has_not_run_stays_empty(tmp_path: Path) -> None:
    save_summary(tmp_path, Summary("x"))
    assert load_summary(tmp_path) == Summary("x")


def test_a_wrong_type_is_named_with_its_place(tmp_path: Path) -> None:
    save_summary(tmp_path, Summary("x"))
    values = json.loads((tmp_path / "summary.json").read_text())
    values["stages"] = [{"name": "pool", "seconds": "long"}]
    (tmp_path / "summary.json").write_text(json.dumps(values))
    with pytest.raises(StageError, match=r"stages\[0\]\.seconds"):
        load_summary(tmp_path)


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"name": ')
    with pytest.raises(StageError, match="not readable JSON"):
        load_summary(tmp_path)


def test_a_document_from_before_the_audit_is_read(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    values = json.loads((tmp_path / "run" / "summary.json").read_text())
    del values["audit"]
    (tmp_path / "run" / "summary.json").write_text(json.dumps(values))
    assert load_summary(tmp_path / "run").audit is None
