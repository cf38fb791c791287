"""The permutation test against a plain loop, and that its p-values mean what they say."""

import numpy as np
import pytest

from embodied_midtrain.gap.mmd import squared_mmd
from embodied_midtrain.gap.permutation import permutation_test


def test_against_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (12, 3)).astype(np.float32), rng.normal(0.5, 1, (9, 3)).astype(np.float32)
    found = permutation_test(x, y, 1.5, permutations=300, seed=7)
    joined, draws, reached = np.concatenate([x, y]), np.random.default_rng(7), 0
    observed = squared_mmd(x, y, 1.5)
    for _ in range(300):
        first = draws.permutation(21)[:12]
        rest = np.setdiff1d(np.arange(21), first)
        reached += squared_mmd(joined[np.sort(first)], joined[rest], 1.5) >= observed - 1e-7
    assert found.mmd == pytest.approx(observed, abs=1e-6)
    assert found.p == pytest.approx((1 + reached) / 301)
    assert found.rows == (12, 9)


def test_p_is_small_for_other_laws_and_uniform_for_one() -> None:
    rng = np.random.default_rng(1)

    def p(shift: float, seed: int) -> float:
        x, y = rng.normal(0, 1, (40, 4)), rng.normal(shift, 1, (40, 4))
        return permutation_test(x.astype("f"), y.astype("f"), 2.0, permutations=99, seed=seed).p

    assert p(1.0, 0) == 0.01
    same = [p(0.0, n) for n in range(60)]
    assert 0.35 < np.mean(same) < 0.65 and np.mean(np.array(same) <= 0.05) < 0.15


def test_one_row_is_too_few() -> None:
    with pytest.raises(ValueError, match="at least two rows"):
        permutation_test(np.zeros((1, 2), "f"), np.zeros((4, 2), "f"), 1.0, permutations=9, seed=0)
