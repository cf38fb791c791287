"""Which samples are shown, and what of each."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from embodied_midtrain.report.gallery import readable, shelves, thumbnail
from embodied_midtrain.report.tables import Key, Scores
from embodied_midtrain.samples import REGION_MARK, Picture, Region, Sample, Turn


def scores(names: str) -> Scores:
    keys = [(name, str(i)) for i, name in enumerate(names)]
    falling = np.linspace(1, 0, len(keys))
    return Scores(keys, falling, 100 * falling)


def reader(keys: list[Key]) -> dict[Key, Sample]:
    picture = io.BytesIO()
    Image.new("RGB", (400, 200), "red").save(picture, "PNG")
    turns = (Turn("user", f"In {REGION_MARK}?", (Region("box", (0.1, 0.2, 0.5, 0.6)),)), Turn("assistant", "Yes."))
    return {key: Sample(*key, (Picture(picture.getvalue()),), turns) for key in keys if key[1] != "0"}


def test_ends_of_the_ranking_and_of_each_source() -> None:
    found = {shelf.source: shelf for shelf in shelves(scores("aabbab"), reader, overall=2, per_source=1, side=100)}
    assert [c.key[1] for c in found[""].closest] == ["0", "1"]
    assert [c.key[1] for c in found[""].farthest] == ["5", "4"]
    assert [c.key[1] for c in (*found["b"].closest, *found["b"].farthest)] == ["2", "5"]


def test_a_small_source_shows_no_sample_twice() -> None:
    for count in (1, 2, 3, 5):
        shelf = shelves(scores("a" * count), reader, overall=4, per_source=4, side=50)[1]
        keys = [c.key for c in (*shelf.closest, *shelf.farthest)]
        assert len(keys) == len(set(keys)) and len(keys) >= min(count, 2)


def test_a_card_has_the_picture_the_marks_and_the_words() -> None:
    shelf = shelves(scores("aab"), reader, overall=1, per_source=1, side=100)[0]
    assert shelf.closest[0].problem == "not found in the pool"
    card = shelf.farthest[0]
    assert card.size == (100, 50)
    image = Image.open(io.BytesIO(base64.b64decode(card.image.split(",")[1])))
    assert image.format == "WEBP" and image.size == (100, 50)
    mark = card.marks[0]
    assert np.allclose((mark.left, mark.top, mark.width, mark.height), (10, 20, 40, 40)) and mark.kind == "box"
    assert card.turns == (("user", "In (10 %, 20 %, 50 %, 60 %)?"), ("assistant", "Yes."))


def test_long_texts_are_cut_and_say_so() -> None:
    text = readable(Turn("assistant", "word " * 1000))
    assert len(text) <= 600 and text.endswith("…")


def test_a_small_image_is_not_blown_up() -> None:
    assert thumbnail(Image.new("RGB", (10, 20)), 224)[1] == (10, 20)
