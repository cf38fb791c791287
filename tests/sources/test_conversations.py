"""Every way in which a user's conversation file can be bad, and every shape in which it is good."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from embodied_midtrain.artifacts import Skips, StageError
from embodied_midtrain.samples import BadSample
from embodied_midtrain.sources.opening import open_pool


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (8, 6), "red").save(folder / f"{name}.png")
    (folder / "zero.png").touch()
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:40])
    return folder


def llava(id: str, image: Any = "a.png", asked: str = "<image>\nWhat?", answered: str = "Red.") -> dict[str, Any]:
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answered}]
    return {"id": id, "conversations": turns, **({"image": image} if image is not None else {})}


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in records))
    return path


def read(path: Path, images: Path) -> tuple[list[Any], Skips]:
    skips = Skips()
    return list(open_pool(path, images=images, skips=skips)), skips


def test_llava_list(tmp_path: Path, images: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps([llava("1"), llava("2", ["a.png", "b.png"], "<image><image>\nCompare.")], indent=1))
    (first, second), skips = read(path, images)
    assert (first.source, first.id, first.turns[0].text, first.answer) == ("data", "1", "What?", "Red.")
    assert len(second.pictures) == 2
    assert second.pictures[0].decode().size == (8, 6)
    assert len(skips) == 0


def test_messages_with_parts_inline_images_and_system_text(tmp_path: Path, images: Path) -> None:
    data = "data:image/png;base64," + base64.b64encode((images / "a.png").read_bytes()).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": data}},
        {"type": "image", "image": "b.png"},
        {"type": "text", "text": "Which is it?"},
    ]
    record = {
        "source": "mine",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": "The first."},
        ],
    }
    # Placeholders in the parts, paths beside them.
    placed = {
        "images": ["a.png"],
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Colour?"}]},
            {"role": "assistant", "content": "Red."},
        ],
    }
    (first, second), skips = read(write(tmp_path / "data.jsonl", [record, placed]), images)
    assert skips.rows == []
    assert first.key == ("mine", "00000000")
    assert first.turns[0].text == "Be brief.\nWhich is it?"
    assert [p.decode().size for p in first.pictures] == [(8, 6)] * 2
    assert second.turns[0].text == "Colour?"
    assert len(second.pictures) == 1


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('{"id": "x", "conversations": [\n', "broken JSON"),
        ("\xff not json\n", "broken JSON"),
        (["a", "list"], "not a record"),
        ({"id": "x"}, "broken record"),
        ({"id": "x", "conversations": ["text"]}, "broken record"),
        ({"id": "x", "conversations": [{"from": "human", "value": 3}]}, "broken record"),
        (llava("x", [3.5]), "missing image"),
        (llava("x", ""), "broken record"),
        ({"id": "x", "conversations": [{"from": "wizard", "value": "hm"}]}, "unknown role"),
        (llava("x", "missing.png"), "missing image"),
        (llava("x", None), "missing image"),
        (llava("x", "a\0.png"), "missing image"),
        (llava("x", "n" * 5000), "missing image"),
        (llava("x", "zero.png"), "empty image"),
        (llava("x", "data:image/png;base64,!!!"), "broken image"),
        (llava("x", "https://example.org/a.png"), "remote image"),
        (llava("x", "../data.jsonl"), "image outside its folder"),
        (llava("x", "/etc/hostname"), "image outside its folder"),
        (llava("x", "way-out.png"), "image outside its folder"),
        (llava("x", answered="   "), "empty text"),
        ({"id": "x", "conversations": []}, "empty text"),
        (llava("x", asked="<image> where is <region>?"), "bad geometry"),
        (llava("x", None, "<video>\nWhat happens?"), "video"),
        (llava("x", None, "What happens?") | {"video": "a.mp4"}, "video"),
        ({"id": "x", "messages": [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}]}, "video"),
        (llava("good"), "duplicate id"),
    ],
)
def test_a_bad_record_is_counted_and_listed_and_costs_only_itself(
    tmp_path: Path, images: Path, bad: Any, reason: str
) -> None:
    (images / "way-out.png").symlink_to(tmp_path / "data.jsonl")
    samples, skips = read(write(tmp_path / "data.jsonl", [llava("good"), bad, llava("after")]), images)
    assert [sample.id for sample in samples] == ["good", "after"]
    assert skips.counts() == {reason: 1}
    assert "record 1" in skips.rows[0]["where"]


def test_a_truncated_image_is_told_when_it_is_decoded(tmp_path: Path, images: Path) -> None:
    ((sample), *_), skips = read(write(tmp_path / "data.jsonl", [llava("1", "cut.png")]), images)
    assert len(skips) == 0
    with pytest.raises(BadSample, match="broken image"):
        sample.pictures[0].decode()


def test_a_second_pass_gives_the_same_samples_and_no_second_skip(tmp_path: Path, images: Path) -> None:
    skips = Skips()
    path = write(tmp_path / "data.jsonl", [llava("1"), "{\n", llava("2", "no.png"), llava("3")])
    pool = open_pool(path, images=images, skips=skips)
    assert list(pool) == list(pool)
    pool.fingerprint()
    assert len(skips) == 2


def test_fingerprint_changes_with_the_text_and_with_an_image(tmp_path: Path, images: Path) -> None:
    path = write(tmp_path / "data.jsonl", [llava("1")])

    def fingerprint() -> str:
        return open_pool(path, images=images, skips=Skips()).fingerprint()

    first = fingerprint()
    assert fingerprint() == first
    os.utime(images / "b.png", ns=(1, 1))
    assert fingerprint() == first  # not one of its images
    Image.new("RGB", (9, 9), "blue").save(images / "a.png")
    second = fingerprint()
    write(path, [llava("1", answered="Blue.")])
    assert len({first, second, fingerprint()}) == 3


def test_images_stand_beside_the_file_by_default(tmp_path: Path, images: Path) -> None:
    path = write(tmp_path / "data.jsonl", [llava("1", "images/a.png")])
    assert len(list(open_pool(path, skips=Skips()))) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.jsonl", "", "empty"),
        ("data.json", "this is no JSON\nat all\n", "not JSON"),
        ("photo.bin", "no data", "nothing that can be read"),
        ("data.json", '{\n  "conversations": []\n}', "not JSON"),
    ],
)
def test_what_is_no_pool_at_all_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(StageError, match=message):
        open_pool(tmp_path / name, skips=Skips())


def test_missing_file_and_missing_image_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no pool"):
        open_pool(tmp_path / "nothing.json", skips=Skips())
    path = write(tmp_path / "data.jsonl", [llava("1", None, "Hello?")])
    with pytest.raises(StageError, match="does not exist"):
        open_pool(path, images=tmp_path / "nowhere", skips=Skips())
