"""Figures computed by hand, or by other software, beside what we compute."""

import math

import numpy as np
import pytest

from embodied_midtrain.intervals import compare, corrected, holm, mcnemar, paired_bootstrap, too_few, wilson


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [
        # Newcombe 1998, table I (method 3, Wilson without continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # By symmetry.
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_against_published_figures(successes, episodes, low, high):
    assert wilson(successes, episodes) == pytest.approx((low, high), abs=5e-5)


def test_few_episodes_are_called_few_by_their_interval():
    assert [bool(too_few(*wilson(k, n))) for k, n in ((10, 20), (20, 20), (25, 50), (5, 5))] == [
        True,
        False,
        False,
        True,
    ]


def test_wilson_rejects_impossible_counts():
    for successes, episodes in ((1, 0), (3, 2), (-1, 4)):
        with pytest.raises(ValueError, match="successes of"):
            wilson(successes, episodes)


def pairs(only_a, only_b, both=0, neither=0):
    rows = [(1, 0)] * only_a + [(0, 1)] * only_b + [(1, 1)] * both + [(0, 0)] * neither
    return tuple(np.array(side, bool) for side in zip(*rows, strict=True))


def test_exact_mcnemar_is_a_sign_test_on_the_pairs_that_differ():
    assert mcnemar(*pairs(5, 0, 20, 3)) == pytest.approx(2 / 32)
    assert mcnemar(*pairs(6, 0)) == pytest.approx(2 / 64)
    assert mcnemar(*pairs(8, 2)) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert mcnemar(*pairs(3, 3, 4)) == 1.0
    assert mcnemar(*pairs(0, 0, 7)) == 1.0


def test_bootstrap_agrees_with_the_normal_interval_where_pairs_are_many():
    a, b = pairs(300, 200, 250, 250)
    d = a.astype(float) - b
    half = 1.959964 * d.std() / math.sqrt(len(d))
    assert paired_bootstrap(a, b) == pytest.approx((0.1 - half, 0.1 + half), abs=0.004)


def test_bootstrap_keeps_the_number_of_episodes_of_each_task():
    """All variance lies between tasks here: drawn within tasks, none is left."""
    a, b = np.array([1] * 10 + [0] * 10, bool), np.zeros(20, bool)
    tasks = ["x"] * 10 + ["y"] * 10
    assert paired_bootstrap(a, b, tasks) == (0.5, 0.5)
    low, high = paired_bootstrap(a, b)
    assert low < 0.35 and high > 0.65


def test_a_clear_difference_is_called():
    a, b = pairs(20, 2, 30, 28)
    found = compare(a, b)
    assert found.outcome == "better" and found.low > 0 and found.p < 0.001
    assert "selected is better than off the shelf, by more than noise" in found.verdict("selected", "off the shelf")
    assert compare(b, a).outcome == "worse"


def test_too_few_episodes_are_said_to_be_too_few():
    """Five of five differing pairs in one direction: the bootstrap excludes 0, the exact test does not."""
    a, b = pairs(5, 0, 10, 5)
    found = compare(a, b)
    assert found.low > 0
    assert found.p == pytest.approx(0.0625)
    assert found.outcome == "cannot tell"
    said = found.verdict("a", "b")
    assert "cannot be told apart with this many episodes" in said and "would need about" in said


def test_equal_results_promise_nothing():
    a, b = pairs(4, 4, 40, 32)
    found = compare(a, b)
    assert found.outcome == "cannot tell" and "would need" not in found.verdict("a", "b")


def test_the_level_of_the_test_holds():
    """Two variants that are the same: p falls below .05 in fewer than 5 % of studies; `compare` asks for it."""
    random = np.random.default_rng(0)
    studies = random.random((4000, 2, 80)) < 0.6
    assert sum(mcnemar(a, b) < 0.05 for a, b in studies) / len(studies) < 0.05


def test_unpaired_lists_are_refused():
    with pytest.raises(ValueError, match="same episodes"):
        compare([True], [True, False])
    with pytest.raises(ValueError, match="same episodes"):
        compare([], [])


def test_holm_against_the_table_of_its_definition():
    # By hand: sorted .01 .02 .03 .04 times 4 3 2 1, never below the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0] and holm([]) == []


def test_holm_keeps_the_chance_of_any_false_finding():
    random = np.random.default_rng(0).uniform(size=(4000, 6))
    assert 0.04 < np.mean([min(holm(row)) < 0.05 for row in random]) < 0.06


def test_a_finding_has_to_survive_all_tests_but_those_of_controls():
    """p = .0156, .0312 and .031 alone; of the first two Holm makes .031 and .031, of three it would make .047."""
    strong, weak, control = compare(*pairs(7, 0, 20)), compare(*pairs(6, 0, 20)), compare(*pairs(0, 6, 20))
    found = corrected([strong, weak, control], controls={2})
    assert [one.p_adjusted for one in found] == pytest.approx([0.03125, 0.03125, 0.03125])
    assert [one.outcome for one in found] == ["better", "better", "worse"] and found[2] == control
    found = corrected([strong, weak, compare(*pairs(3, 3, 20)), control], controls={3})
    assert [one.p_adjusted for one in found] == pytest.approx([0.046875, 0.0625, 1.0, 0.03125])
    assert [one.outcome for one in found] == ["better", "cannot tell", "cannot tell", "worse"]
    assert "cannot be told apart" in found[1].verdict("a", "b")
    assert "p = 0.031, by Holm over 3 tests 0.062)" in found[1].verdict("a", "b")
