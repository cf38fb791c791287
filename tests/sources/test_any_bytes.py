"""Whatever the bytes of a pool's file are, each reader gives samples, listed skips, or a refusal of ours."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_midtrain.artifacts import Skips, StageError
from embodied_midtrain.config import ConfigError
from embodied_midtrain.samples import BadSample
from embodied_midtrain.sources.opening import open_pool
from tests.sources.test_webdataset import img2dataset, picture, shard

RECORDS = [
    {
        "id": str(n),
        "image": "0.png",
        "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A thing."}],
    }
    for n in range(3)
]


def a_list(root: Path) -> Path:
    (root / "0.png").write_bytes(picture())
    (root / "pool.json").write_text(json.dumps(RECORDS))
    return root / "pool.json"


def lines(root: Path) -> Path:
    (root / "0.png").write_bytes(picture())
    (root / "pool.jsonl").write_text("\n".join(map(json.dumps, RECORDS)))
    return root / "pool.jsonl"


def tables(root: Path) -> Path:
    rows = [{"id": str(n), "image": {"bytes": picture(n), "path": None}, "caption": "a thing"} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), root / "a.parquet")
    return root / "a.parquet"


def sidecar(root: Path) -> Path:
    (root / "0.png").write_bytes(picture())
    (root / "0.json").write_text(json.dumps({"question": "What?", "answer": "A thing."}))
    return root / "0.json"


MADE: dict[str, Callable[[Path], Path]] = {
    "list": a_list,
    "lines": lines,
    "tar": lambda root: shard(root / "0.tar", img2dataset("0", "1", "2")),
    "table": tables,
    "folder": sidecar,
}
edit = st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=12))


def read(path: Path, skips: Skips) -> int:
    count = 0
    for sample in open_pool(path, skips=skips):
        count += 1
        sample.check()
        for one in sample.pictures:
            try:
                assert one.decode().mode == "RGB"
            except BadSample as error:
                assert error.reason
    return count


@pytest.mark.parametrize("kind", MADE)
@settings(max_examples=60, deadline=None)
@given(edits=st.lists(edit, min_size=1, max_size=3), cut=st.floats(0.1, 1.5))
def test_any_bytes_give_samples_skips_or_a_refusal(
    kind: str, edits: list[tuple[float, int, bytes]], cut: float
) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = MADE[kind](Path(place))
        opened = path.parent if kind == "folder" else path
        assert read(opened, Skips()) == (1 if kind == "folder" else 3)
        data = bytearray(path.read_bytes())
        for where, length, new in edits:
            at = int(where * len(data))
            data[at : at + length] = new
        path.write_bytes(bytes(data[: int(cut * len(data))]))
        skips = Skips()
        try:
            read(opened, skips)
        except (StageError, ConfigError):
            return
        assert all(row["reason"] and row["where"] for row in skips.rows)


json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["id", "image", "images", "conversations", "messages", "question", "answer", "options", "text"])


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(json_value | st.dictionaries(names, json_value, max_size=5), max_size=4))
def test_any_records_are_samples_or_listed_skips(rows: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "pool.json"
        path.write_text(json.dumps([*rows, {"question": "Why?", "answer": "So."}]))
        skips = Skips()
        assert read(path, skips) + len(skips) == len(rows) + 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b""),
        ("a.json", b"[]"),
        ("a.jsonl", b"  \n"),
        ("a.parquet", b""),
        ("a.tar", b""),
        ("a.tar", bytes(1024)),
    ],
)
def test_an_empty_source_gives_no_sample_and_no_traceback(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    skips = Skips()
    try:
        assert read(tmp_path / name, skips) == 0
    except StageError as error:
        assert name in str(error)
    with pytest.raises(StageError, match=r"there is nothing at|holds nothing"):
        (tmp_path / "empty").mkdir()
        open_pool(tmp_path / "empty", skips=Skips())
