"""Large JSON files, read in pieces."""

import json
from pathlib import Path

import pytest

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.sources import records
from embodied_midtrain.sources.places import Place
from embodied_midtrain.sources.records import Broken, read_records


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_is_read_the_same_whatever_the_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None
) -> None:
    monkeypatch.setattr(records, "_CHUNK", chunk)
    rows = [{"id": i, "text": 'quotes " and ] and , and \\ and é' * i, "deep": [[{}], None, 1.5]} for i in range(9)]
    path = tmp_path / "rows.json"
    # A byte order mark, as some editors write it. The first chunk must hold the bracket.
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(rows, indent=indent).encode())
    if chunk >= 7:
        assert list(read_records(Place(str(path)))) == rows
    else:
        path.write_text(json.dumps(rows, indent=indent))
        assert list(read_records(Place(str(path)))) == rows


def test_an_empty_list_has_no_records(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("[ ]")
    assert list(read_records(Place(str(tmp_path / "rows.json")))) == []


@pytest.mark.parametrize(
    "text", ['[{"a": 1}, {"a": 2}, {"a":', '[{"a": 1}, {"a": 2}', '[{"a": 1}, {"a": 2}, oops, {}]']
)
def test_a_damaged_list_is_refused_after_what_could_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.json").write_text(text)
    read = []
    with pytest.raises(StageError, match="after record 2"):
        read.extend(_each(tmp_path / "rows.json", read))
    assert read == [{"a": 1}, {"a": 2}]


def _each(path: Path, into: list) -> list:
    for row in read_records(Place(str(path))):
        into.append(row)
    return []


def test_a_list_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_bytes(b'[{"a": "\xff"}]')
    with pytest.raises(StageError, match="UTF-8"):
        list(read_records(Place(str(tmp_path / "rows.json"))))


def test_lines_go_on_after_a_broken_one(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(
        b'\xef\xbb\xbf{"a": 1}\n\n{"a": \n\xff\xfe\n' + b"[" * 100_000 + b'\n{"a": 2}\n'
    )
    rows = list(read_records(Place(str(tmp_path / "rows.jsonl"))))
    assert [row for row in rows if not isinstance(row, Broken)] == [{"a": 1}, {"a": 2}]
    assert ["line 3" in row.why for row in rows if isinstance(row, Broken)] == [True, False, False]
