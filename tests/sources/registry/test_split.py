from collections import Counter

import pytest

from embodied_midtrain.sources.registry.split import owner, stem


def test_shares_are_as_told() -> None:
    counts = Counter(owner("any", f"thing{n}x") for n in range(20_000))
    assert counts["general"] / 20_000 == pytest.approx(0.45, abs=0.02)
    assert counts["held-out"] / 20_000 == pytest.approx(0.05, abs=0.01)
    assert counts["pool"] / 20_000 == pytest.approx(0.50, abs=0.02)


@pytest.mark.parametrize("name", ["animals/Red_Car-02.png", "red car.svg", "RED-CAR_17.jpg", "red_car_left.png"])
def test_look_alikes_share_an_owner(name: str) -> None:
    assert stem(name) == "red car"
    assert owner("a", name) == owner("b", "red_car")


def test_a_name_of_numbers_stays_a_name() -> None:
    assert stem("0001.png") == "0001"
    assert owner("a", "0001.png") == owner("a", "x/0001.jpg")
