"""What `emt pool inspect` says of a pool, and of its faults."""

import json
from pathlib import Path

import pytest
from PIL import Image

from embodied_midtrain.cli import main
from embodied_midtrain.sources import pictures
from embodied_midtrain.sources.inspect import inspect_pool


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    rows = [
        {"id": n, "image": image, "question": "Which?", "answer": "This one.", "license": "MIT"}
        for n, image in (("1", "a.png"), ("2", ["a.png", "a.png"]), ("3", "cut.png"), ("4", "gone.png"))
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "p.jsonl"


def test_counts_sizes_and_faults(pool: Path) -> None:
    facts = inspect_pool(pool)
    own = facts["sources"]["p"]
    assert (facts["looked_at"], facts["usable"], own["pictures"]) == (3, 2, {"1": 1, "2": 1})
    assert own["image_width"]["median"] == 80 and own["image_formats"] == {"png": 3}
    assert own["characters_asked"]["median"] == 6 and own["licences"] == {"MIT": 2}
    assert facts["skipped"] == {"broken image": 1, "missing image": 1}


def test_headers_alone_do_not_find_what_is_cut_off(pool: Path) -> None:
    assert inspect_pool(pool, decode=False)["skipped"] == {"missing image": 1}


def test_headers_find_what_is_too_large(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 10)
    assert inspect_pool(pool, decode=False)["skipped"] == {"image too large": 3, "missing image": 1}


def test_the_command(pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pool", "inspect", "--pool", str(pool), "--out", str(tmp_path / "f.json"), "--limit", "1"]) == 0
    said = capsys.readouterr()
    assert "usable: 1; faults: none" in said.out and "p/1" in said.err
    assert json.loads((tmp_path / "f.json").read_text())["all"] is False
    assert main(["pool", "inspect", "--pool", str(tmp_path / "nothing")]) == 1
    assert "there is no pool" in capsys.readouterr().err
