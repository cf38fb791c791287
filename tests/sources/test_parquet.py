"""Tables: by pyarrow, by `datasets` itself (Parquet and save_to_disk), images inside or beside, broken ones."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.sources.mixed import Source, open_source
from embodied_midtrain.sources.opening import read_samples


def picture(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def encoded(frame: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG")
    return buffer.getvalue()


def robo2vlm(count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"q{n}",
            "question": f"Which way, {n}?",
            "choices": "['left', \"the robot's right\", 'up']",
            "correct_answer": n % 3,
            "image": {"bytes": picture(n), "path": f"{n}.png"},
        }
        for n in range(count)
    ]


def read(path: Path | str, format: str = "auto", **more: Any) -> tuple[list[Any], Skips]:
    skips = Skips()
    return list(open_source(Source(str(path), format, **more), skips)), skips


def test_questions_with_options_in_a_table(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(robo2vlm(5)), tmp_path / "train.parquet", row_group_size=2)
    samples, skips = read(tmp_path / "train.parquet", "robo2vlm")
    assert [s.key for s in samples] == [("train", f"q{n}") for n in range(5)] and not skips.rows
    assert samples[1].turns[0].text == "Which way, 1?\nA. left\nB. the robot's right\nC. up"
    assert samples[1].answer == "B. the robot's right"
    assert samples[4].pictures[0].read() == picture(4)


def test_pictures_stay_in_the_table_until_they_are_read(tmp_path: Path) -> None:
    rows = [{**row, "image": [row["image"], {"bytes": picture(9), "path": None}]} for row in robo2vlm(70)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=66)
    pool = open_source(Source(str(tmp_path / "a.parquet"), "robo2vlm"), Skips())
    (found,) = pool.find([("a", "q69")]).values()
    assert [p.data for p in found.pictures] == [None, None]
    assert [p.read() for p in found.pictures] == [picture(69), picture(9)]


def test_a_folder_of_tables_is_one_source(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002"):
        pq.write_table(pa.Table.from_pylist(robo2vlm(2)), tmp_path / f"{name}.parquet")
    samples, skips = read(tmp_path, "robo2vlm", name="robo2vlm")
    assert len({s.key for s in samples}) == 4 and not skips.rows
    assert samples[3].id == "train-00001-of-00002/q1"
    assert [s.key for s in read_samples(tmp_path, [])] == []


def test_captions_with_paths_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(picture())
    rows = [
        {"image": "a.png", "caption": "a thing"},
        {"image": "../b.png", "caption": "out"},
        {"image": None, "caption": "x"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    samples, skips = read(tmp_path / "a.parquet", images=tmp_path / "images")
    assert [(s.id, s.answer, len(s.pictures)) for s in samples] == [("row 0", "a thing", 1), ("row 2", "x", 0)]
    assert skips.counts() == {"image outside its folder": 1}


def test_what_datasets_wrote_to_disk_and_as_parquet(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    images = [Image.new("RGB", (7, 5), (n, 0, 0)) for n in range(3)]
    made = datasets.Dataset.from_dict({"image": images, "text": ["one", "two", "three"]}).cast_column(
        "image", datasets.Image()
    )
    made.save_to_disk(tmp_path / "disk")
    made.to_parquet(tmp_path / "made.parquet")
    for path in (tmp_path / "disk", tmp_path / "made.parquet"):
        samples, skips = read(path)
        assert [s.answer for s in samples] == ["one", "two", "three"] and not skips.rows
        assert [s.pictures[0].decode().getpixel((0, 0))[0] for s in samples] == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"correct_answer": 7}, "broken record"),
        ({"correct_answer": None}, "broken record"),
        ({"choices": "__import__('os').getcwd()"}, "broken record"),
        ({"choices": "[" * 400}, "broken record"),
        ({"choices": "'left'"}, "broken record"),
        ({"question": ""}, None),
        ({"image": {"bytes": b"", "path": None}}, "empty image"),
        ({"image": {"bytes": None, "path": None}}, "missing image"),
        ({"id": "q0"}, "duplicate id"),
    ],
)
def test_a_bad_row_costs_only_itself(tmp_path: Path, change: dict[str, Any], reason: str | None) -> None:
    rows = robo2vlm(3)
    rows[1].update(change)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    samples, skips = read(tmp_path / "a.parquet", "robo2vlm")
    assert [r["reason"] for r in skips.rows] == ([reason] if reason else [])
    assert [s.id for s in samples if s.id in ("q0", "q2")] == ["q0", "q2"]


def test_a_damaged_table_costs_itself_and_unknown_columns_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(robo2vlm(3)), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-50])
    (tmp_path / "c.parquet").write_bytes(b"")
    pq.write_table(pa.table({"foo": [1]}), tmp_path / "d.parquet")
    samples, skips = read(tmp_path, "robo2vlm")
    assert len(samples) == 3
    assert skips.counts() == {"broken table": 2, "unknown columns": 1}
    assert "foo" in skips.rows[-1]["detail"]


def test_rows_with_a_video_in_place_of_an_image_are_counted(tmp_path: Path) -> None:
    rows = [{"id": "v", "question": "What happens?", "answer": "It falls.", "video": "a.mp4"}]
    rows += [{"id": "t", "question": "Which is heavier?", "answer": "Lead.", "video": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "videos.parquet")
    samples, skips = read(tmp_path / "videos.parquet")
    assert [s.id for s in samples] == ["t"] and skips.counts() == {"video": 1}
    # Beside images they are left where they are.
    pq.write_table(pa.Table.from_pylist([one | {"video": b"0"} for one in robo2vlm(2)]), tmp_path / "both.parquet")
    samples, skips = read(tmp_path / "both.parquet", "robo2vlm")
    assert len(samples) == 2 and not skips.rows
