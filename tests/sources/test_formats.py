"""The paper's sources, each with a record as it is published (made up in content)."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from embodied_midtrain.artifacts import Skips, StageError
from embodied_midtrain.config import ConfigError
from embodied_midtrain.sources.formats import FORMATS, named
from embodied_midtrain.sources.mixed import Source, open_source
from embodied_midtrain.sources.opening import open_pool


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / "a.png")
    return tmp_path / "images"


def read(path: Path, format: str, images: Path) -> tuple[list[Any], Skips]:
    skips = Skips()
    return list(open_source(Source(str(path), format, images=images), skips)), skips


def test_llava_counts_its_ids_per_task_and_writes_boxes_in_unit_coordinates(tmp_path: Path, images: Path) -> None:
    def row(asked: str, answered: str) -> dict[str, Any]:
        turns = [{"from": "human", "value": f"<image>\n{asked}"}, {"from": "gpt", "value": answered}]
        return {"id": "000000033471", "image": "a.png", "conversations": turns}

    rows = [row("What?", "A bus."), row("Where is it?", "[0.12, 0.2, 0.5, 0.61]"), {"id": "x", "model": "", **{}}]
    rows.append(
        {
            "id": "identity_1",
            "model": "",
            "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}],
        }
    )
    (tmp_path / "mix.json").write_text(json.dumps(rows))
    samples, skips = read(tmp_path / "mix.json", "llava-665k", images)
    assert [s.id for s in samples] == ["000000033471", "000000033471#00000001", "identity_1"]
    assert samples[1].turns[1].regions[0].values == (0.12, 0.2, 0.5, 0.61)
    assert samples[2].pictures == () and skips.counts() == {"broken record": 1}


def test_vcr_names_people_by_number(tmp_path: Path, images: Path) -> None:
    row = {
        "objects": ["person", "person", "chair"],
        "img_fn": "a.png",
        "question": ["Why", "is", [0], "near", [1, 2], "?"],
        "answer_choices": [["No", "."], [[0], "'s", "friend", "sits", "."]],
        "answer_label": 1,
        "rationale_choices": [["They", "talk", "."]],
        "rationale_label": 0,
        "annot_id": "train-0",
    }
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "answer_label": 7}) + "\n")
    samples, skips = read(tmp_path / "train.jsonl", "vcr", images)
    assert samples[0].turns[0].text == "Why is person 1 near person 2 and chair 3?"
    assert samples[0].answer == "person 1's friend sits. They talk."
    assert skips.counts() == {"broken record": 1}


def test_embspatial_bench_has_images_in_base64(tmp_path: Path, images: Path) -> None:
    data = (images / "a.png").read_bytes()
    row = {
        "question_id": "mp3d_0",
        "question": "How are chair and table positioned?",
        "answer_options": ["left", "right", "above", "below"],
        "answer": 1,
        "image": base64.b64encode(data).decode(),
    }
    (tmp_path / "bench.json").write_text(json.dumps([row, {**row, "question_id": "mp3d_1", "image": "%%"}]))
    (sample,), skips = read(tmp_path / "bench.json", "embspatial-bench", images)
    assert (sample.id, sample.answer) == ("mp3d_0", "B. right") and sample.pictures[0].read() == data
    assert skips.counts() == {"broken image": 1}


@pytest.mark.parametrize("name", ["robopoint", "refspatial"])
def test_points_become_geometry(tmp_path: Path, images: Path, name: str) -> None:
    turns = [{"from": "human", "value": "<image>\nPoint."}, {"from": "gpt", "value": "[(0.461, 0.527), (0.5, 0.52)]"}]
    (tmp_path / "p.json").write_text(json.dumps([{"id": "1", "image": "a.png", "conversations": turns}]))
    (sample,), _ = read(tmp_path / "p.json", name, images)
    assert [r.values for r in sample.turns[1].regions] == [(0.461, 0.527), (0.5, 0.52)]


def test_all_eight_sources_of_the_paper_are_named() -> None:
    wanted = {"laion-400m", "cc-12m", "llava-665k", "vcr", "refspatial", "embspatial-bench", "robo2vlm", "robopoint"}
    assert wanted <= set(FORMATS)
    with pytest.raises(ConfigError, match="did you mean 'cc-12m'"):
        named("cc12m")


def test_several_sources_as_one_pool(tmp_path: Path, images: Path) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": "1", "conversations": turns}) + "\n")
    (tmp_path / "images" / "a.txt").write_text("a thing")
    (tmp_path / "pool.yaml").write_text(
        "sources:\n"
        "  - {path: one.jsonl, licence: MIT}\n"
        "  - {path: two.jsonl, name: second, fields: {caption: [title]}}\n"
        "  - {path: images, format: folder}\n"
    )
    skips = Skips()
    pool = open_pool(tmp_path / "pool.yaml", skips=skips)
    samples = list(pool)
    assert [(s.key, s.licence) for s in samples] == [
        (("one", "1"), "MIT"),
        (("second", "1"), ""),
        (("images", "a.png"), ""),
    ]
    assert set(pool.find([s.key for s in samples])) == {s.key for s in samples} and not skips.rows
    before = pool.fingerprint()
    (tmp_path / "two.jsonl").write_text(json.dumps({"id": "2", "conversations": turns}) + "\n")
    assert open_pool(tmp_path / "pool.yaml", skips=Skips()).fingerprint() != before


def test_ids_are_told_apart_across_sources(tmp_path: Path) -> None:
    for name in ("one", "two"):
        record = {"source": "coco", "id": "1", "question": "Why?", "answer": f"So {name}."}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "pool.yaml").write_text("sources:\n  - {path: one.jsonl}\n  - {path: two.jsonl}\n")
    with pytest.raises(StageError, match=r"'one' and of 'two' both name the source 'coco'.*fields: {source: \[\]}"):
        list(open_pool(tmp_path / "pool.yaml", skips=Skips()))
    (tmp_path / "pool.yaml").write_text(
        "sources:\n  - {path: one.jsonl}\n  - {path: two.jsonl, fields: {source: []}}\n"
    )
    pool = open_pool(tmp_path / "pool.yaml", skips=Skips())
    assert [s.key for s in pool] == [("coco", "1"), ("two", "1")]
    assert [s.answer for s in pool.find([("two", "1")]).values()] == ["So two."]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources: []", "names no sources"),
        ("sources: [{path: a.jsonl, formt: x}]", "did you mean 'format'"),
        ("sources: [{path: a.jsonl}, {path: a.jsonl}]", "two sources are called 'a'"),
        ("sources: [{path: a.jsonl, format: lava}]", "no format 'lava'"),
        ("source: []", "did you mean 'sources'"),
    ],
)
def test_a_pool_file_that_cannot_be_meant(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "Why?", "answer": "So."}\n')
    (tmp_path / "pool.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        open_pool(tmp_path / "pool.yaml", skips=Skips())


def test_pictures_of_odd_kinds_become_plain_ones(tmp_path: Path) -> None:
    """CMYK, 16 bits, an animation, a palette with transparency."""
    made = {
        "cmyk.jpg": Image.new("CMYK", (8, 6)),
        "deep.png": Image.new("I;16", (8, 6), 0x9C40),
        "palette.gif": Image.new("P", (8, 6)),
        "clear.png": Image.new("RGBA", (8, 6), (255, 0, 0, 0)),
    }
    for name, image in made.items():
        image.save(tmp_path / name)
    frames = [Image.new("RGB", (8, 6), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:])
    for path in tmp_path.iterdir():
        path.with_suffix(".txt").write_text("a thing") if path.suffix != ".txt" else None
    samples = list(open_pool(tmp_path, skips=Skips()))
    assert len(samples) == 5
    for sample in samples:
        image = sample.pictures[0].decode()
        assert (image.mode, image.size) == ("RGB", (8, 6))
    assert io.BytesIO(samples[0].pictures[0].read())
