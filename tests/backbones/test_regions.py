import pytest

from embodied_midtrain.backbones.regions import (
    location_tokens,
    percent,
    pixels,
    read_percent,
    thousandths,
)
from embodied_midtrain.samples import Region, Turn


def test_written_as_two_digit_percentages() -> None:
    assert percent(Region("point", (0.37, 0.618))) == "(37, 62)"
    assert percent(Region("box", (0.0, 0.05, 0.999, 1.0))) == "(00, 05, 99, 99)"


def test_other_forms() -> None:
    box, point = Region("box", (0.0, 0.25, 0.5, 1.0)), Region("point", (0.37, 0.62))
    assert thousandths(box) == "[0, 250, 500, 1000]" and thousandths(point) == "[370, 620]"
    assert pixels(box, (448, 224)) == "[0, 56, 224, 223]" and pixels(point, (100, 10)) == "[37, 6]"
    assert location_tokens(box) == "<loc0256><loc0000><loc1023><loc0512>"
    assert location_tokens(point) == "<loc0634><loc0379>"


def test_marks_are_replaced_in_order() -> None:
    turn = Turn("user", "From <region> to <region>.", (Region("point", (0.1, 0.2)), Region("point", (0.3, 0.4))))
    assert turn.written(percent) == "From (10, 20) to (30, 40)."


@pytest.mark.parametrize(
    ("text", "count", "found"),
    [
        ("(37, 62)", 2, (0.37, 0.62)),
        ("It is at (5,7).", 2, (0.05, 0.07)),
        ("(01, 02, 03, 04)", 4, (0.01, 0.02, 0.03, 0.04)),
        ("(01, 02, 03, 04)", 2, None),
        ("nowhere", 2, None),
        ("(370, 62)", 2, None),
    ],
)
def test_read_back(text: str, count: int, found: tuple[float, ...] | None) -> None:
    assert read_percent(text, count) == found
