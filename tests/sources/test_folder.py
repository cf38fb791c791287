"""Folders of images: captions beside them, or in one metadata file as `datasets` has it."""

import json
from pathlib import Path

import pytest
from PIL import Image

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.sources.opening import open_pool


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("cats/a.png", "cats/b.jpg", "dogs/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 6)).save(tmp_path / name)
    return tmp_path


def test_captions_beside_images(root: Path) -> None:
    (root / "cats" / "a.txt").write_text("a cat")
    (root / "dogs" / "a.json").write_text(json.dumps({"question": "What?", "answer": "A dog."}))
    skips = Skips()
    samples = list(open_pool(root, skips=skips))
    assert [(s.id, s.answer) for s in samples] == [("cats/a.png", "a cat"), ("dogs/a.png", "A dog.")]
    assert samples[0].pictures[0].decode().size == (8, 6)
    assert [(r["reason"], r["where"]) for r in skips.rows] == [("missing text", "cats b")]


def test_a_metadata_file(root: Path) -> None:
    rows = [{"file_name": "a.png", "text": "a cat"}, {"file_name": "../dogs/a.png", "text": "a dog"}, {"text": "?"}]
    (root / "cats" / "metadata.jsonl").write_text("\n".join([*map(json.dumps, rows), "{oops"]))
    skips = Skips()
    samples = list(open_pool(root / "cats", skips=skips))
    assert [(s.id, s.answer) for s in samples] == [("a.png", "a cat")]
    assert skips.counts() == {"broken JSON": 1, "broken record": 1, "image outside its folder": 1}


def test_a_metadata_table(root: Path) -> None:
    (root / "cats" / "metadata.csv").write_text('file_name,caption\na.png,"a cat, asleep"\nb.jpg,another\n')
    samples = list(open_pool(root / "cats", skips=Skips()))
    assert [(s.id, s.answer) for s in samples] == [("a.png", "a cat, asleep"), ("b.jpg", "another")]


def test_broken_sidecars(root: Path) -> None:
    (root / "cats" / "a.json").write_text("{")
    (root / "cats" / "b.txt").write_bytes(b"\xff\xfe\xff")
    (root / "dogs" / "a.json").write_text("[1]")
    skips = Skips()
    assert list(open_pool(root, skips=skips)) == []
    assert skips.counts() == {"broken record": 1, "broken text": 2}
