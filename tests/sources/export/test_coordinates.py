import pytest

from embodied_midtrain.samples import BadSample, Region, Turn
from embodied_midtrain.sources.export.coordinates import scaled, write_turn

TURN = Turn(
    "assistant", "A <region> and <region>.", (Region("box", (0.1, 0.25, 0.5, 1.0)), Region("point", (0.0, 1.0)))
)


@pytest.mark.parametrize(
    ("coordinates", "text"),
    [
        ("unit", "A [0.100, 0.250, 0.500, 1.000] and (0.000, 1.000)."),
        ("thousand", "A [100, 250, 500, 1000] and (0, 1000)."),
        ("pixels", "A [64, 120, 320, 480] and (0, 480)."),
        # 640 x 480 becomes 644 x 476.
        ("qwen2.5", "A [64, 119, 322, 476] and (0, 476)."),
    ],
)
def test_each_convention(coordinates, text: str) -> None:
    assert write_turn(TURN, coordinates, [(640, 480)]) == text


def test_the_scale_of_qwen() -> None:
    assert scaled((28, 28)) == (56, 56)  # enlarged to the least number of pixels
    assert scaled((640, 480)) == (644, 476)
    width, height = scaled((4000, 3000))
    assert width % 28 == height % 28 == 0 and width * height <= 14 * 14 * 4 * 1280
    with pytest.raises(BadSample, match="image too narrow"):
        scaled((5000, 10))


def test_pixels_of_what() -> None:
    assert write_turn(TURN, "unit", []).startswith("A [0.1")
    assert write_turn(TURN, "pixels", [(10, 10), (10, 10)]).startswith("A [1,")
    for sizes in ([], [(10, 10), (20, 10)]):
        with pytest.raises(BadSample, match="ambiguous geometry"):
            write_turn(TURN, "pixels", sizes)
    assert write_turn(Turn("user", "no geometry"), "pixels", []) == "no geometry"
