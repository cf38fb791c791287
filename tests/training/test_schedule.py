import math
from itertools import pairwise

import pytest

from embodied_midtrain.training.schedule import cosine, warmup_steps


def test_warmup_by_ratio_or_number():
    assert warmup_steps(5000, ratio=0.1) == 500
    assert warmup_steps(16000, ratio=0.1, fixed=500) == 500
    assert warmup_steps(3, ratio=0.1) == 1
    with pytest.raises(ValueError, match="do not fit"):
        warmup_steps(100, fixed=101)


def test_rises_to_one_then_falls_along_half_a_cosine():
    rates = [cosine(step, 110, 10) for step in range(110)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[109] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert all(a > b for a, b in pairwise(rates[10:]))


def test_no_warmup_starts_at_the_peak_and_floor_is_kept():
    assert cosine(0, 10, 0) == 1.0
    assert cosine(10, 10, 0, floor=0.1) == pytest.approx(0.1)
