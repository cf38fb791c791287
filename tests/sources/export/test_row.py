import io
from pathlib import Path

import pytest
from PIL import Image

from embodied_midtrain.samples import BadSample, Picture, Sample, Turn
from embodied_midtrain.sources.export.row import alternating, make_rows
from embodied_midtrain.sources.export.selection import Line

from .pools import encoded, sample

ONCE = [Line("a", "1", {"score": 0.5}, 0)]


def test_pictures_are_copied_or_turned_into_png() -> None:
    kinds = [("JPEG", "RGB"), ("PNG", "RGB"), ("JPEG", "CMYK"), ("WEBP", "RGB"), ("GIF", "P"), ("BMP", "RGB")]
    given = [encoded(kind, mode=mode) for kind, mode in kinds]
    (row,) = make_rows(sample("1", pictures=given), ONCE, 0, coordinates="unit")
    assert [picture.ending for picture in row.pictures] == ["jpg", "png", "jpg", "png", "png", "png"]
    assert [p.data == data for p, data in zip(row.pictures, given, strict=True)] == [True] * 3 + [False] * 3
    for picture, data in zip(row.pictures[3:], given[3:], strict=True):
        with Image.open(io.BytesIO(picture.data)) as ours, Image.open(io.BytesIO(data)) as theirs:
            assert ours.format == "PNG" and ours.convert("RGB").tobytes() == theirs.convert("RGB").tobytes()
    assert {len(picture.name.split("/")) for picture in row.pictures} == {3}


def test_a_cut_picture_is_found_only_where_it_is_decoded() -> None:
    cut = encoded("JPEG", (64, 64))[:-300]
    with pytest.raises(BadSample, match="broken image"):
        make_rows(sample("1", pictures=[cut]), ONCE, 0, coordinates="unit")
    assert make_rows(sample("1", pictures=[cut]), ONCE, 0, coordinates="unit", decode=False)[0].pictures[0].data == cut


@pytest.mark.parametrize("data", [b"", b"nothing", b"\xff\xd8\xff\xe0 no more"])
def test_what_is_no_picture(data: bytes) -> None:
    for decode in (True, False):
        with pytest.raises(BadSample, match="image"):
            make_rows(sample("1", pictures=[data]), ONCE, 0, coordinates="unit", decode=decode)


def test_sides_come_in_turn() -> None:
    u, a = ("user", "u"), ("assistant", "a")
    assert alternating([u, a]) == [u, a]
    assert alternating([a]) == [("user", ""), a]
    assert alternating([u, u, a, a, u]) == [("user", "u\nu"), ("assistant", "a\na")]
    assert alternating([u]) == [] and alternating([]) == []


def test_tags_stand_at_the_head() -> None:
    png = encoded()
    turns = (Turn("user", "A"), Turn("assistant", "B"), Turn("user", "C"), Turn("assistant", "D"))
    (row,) = make_rows(sample("1", pictures=[png, png], turns=turns), ONCE, 5, coordinates="unit")
    assert [turn["value"] for turn in row.conversation()] == ["<image>\n<image>\nA", "B", "C", "D"]
    (row,) = make_rows(sample("1", pictures=[png], turns=turns[1:2]), ONCE, 5, coordinates="unit")
    assert row.conversation()[0] == {"from": "human", "value": "<image>"}


def test_what_cannot_be_written() -> None:
    for text, reserved, reason in (
        ("see <video>", ("<video>",), "reserved word"),
        ("half \ud800", (), "broken text"),
        ("  ", (), "empty text"),
    ):
        turns = (Turn("user", "?"), Turn("assistant", text))
        with pytest.raises(BadSample, match=reason):
            make_rows(sample("1", turns=turns), ONCE, 0, coordinates="unit", reserved=reserved)
    gone = Sample("a", "1", (Picture(path=Path("/nowhere.png")),), sample("1").turns)
    with pytest.raises(BadSample, match="missing image"):
        make_rows(gone, ONCE, 0, coordinates="unit")


def test_a_sample_named_twice() -> None:
    lines = [Line("a", "1", {"rank": 0}, 0), Line("a", "1", {"rank": 9}, 1)]
    rows = make_rows(sample("1"), lines, 7, coordinates="unit")
    assert [(row.number, row.facts["id"], row.facts["rank"], row.repeated) for row in rows] == [
        (7, "1", 0, False),
        (8, "1#2", 9, True),
    ]
