import pytest

from embodied_midtrain.backbones.regions import percent, read_percent, write_regions
from embodied_midtrain.samples import Region, Turn


def test_written_as_two_digit_percentages() -> None:
    assert percent(Region("point", (0.37, 0.618))) == "(37, 62)"
    assert percent(Region("box", (0.0, 0.05, 0.999, 1.0))) == "(00, 05, 99, 99)"


def test_marks_are_replaced_in_order() -> None:
    turn = Turn("user", "From <region> to <region>.", (Region("point", (0.1, 0.2)), Region("point", (0.3, 0.4))))
    assert write_regions(turn) == "From (10, 20) to (30, 40)."


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
