"""The best K under caps and floors, against a plain sort; draws in proportion."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_midtrain.proximity.shaping import gumbel, ranks, top_k

SCORES = st.lists(st.one_of(st.integers(0, 6).map(float), st.just(float("nan"))), min_size=1, max_size=40)


def plainly(scores, k, codes=None, caps=None):
    """One by one from the highest on, the first of equals first, a source's door shut when it is full."""
    had = {}
    chosen = []
    for n in sorted(range(len(scores)), key=lambda n: (-scores[n] if np.isfinite(scores[n]) else np.inf, n)):
        if not np.isfinite(scores[n]) or len(chosen) == k:
            break
        if caps is not None and had.get(codes[n], 0) >= caps[codes[n]]:
            continue
        had[codes[n]] = had.get(codes[n], 0) + 1 if codes is not None else 0
        chosen.append(n)
    return chosen


@given(SCORES, st.integers(0, 45))
def test_the_best_are_those_of_a_sort(scores, k):
    assert top_k(np.array(scores, np.float32), k).tolist() == plainly(scores, k, codes=[0] * len(scores))


@given(SCORES, st.integers(0, 45), st.data())
def test_under_caps_they_are_those_of_a_doorman(scores, k, data):
    codes = data.draw(st.lists(st.integers(0, 2), min_size=len(scores), max_size=len(scores)))
    caps = data.draw(st.lists(st.integers(0, 10), min_size=3, max_size=3))
    found = top_k(np.array(scores, np.float32), k, codes=np.array(codes, np.uint16), caps=np.array(caps))
    assert found.tolist() == plainly(scores, k, codes, caps)


def test_floors_come_first():
    scores, codes = np.array([9, 8, 7, 1, 0, 5], np.float32), np.array([0, 0, 0, 1, 1, 2], np.uint16)
    assert top_k(scores, 4, codes=codes, floors=np.array([0, 2, 0])).tolist() == [0, 1, 3, 4]
    assert top_k(scores, 4, codes=codes, floors=np.array([0, 1, 0]), caps=np.array([1, 1, 1])).tolist() == [0, 5, 3]
    with pytest.raises(ValueError, match="floors ask for 2"):
        top_k(scores, 1, codes=codes, floors=np.array([0, 2, 0]))


def test_a_draw_is_in_proportion():
    """Of four with ratios 1, 2, 3, 4, the first drawn is each as often as its ratio says."""
    log_ratios = np.log(np.array([1, 2, 3, 4], np.float32))
    first = [top_k(gumbel(log_ratios, temperature=1.0, seed=n), 1)[0] for n in range(4000)]
    assert np.bincount(first) / 4000 == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.03)
    sharp = [top_k(gumbel(log_ratios, temperature=0.01, seed=n), 1)[0] for n in range(50)]
    assert set(sharp) == {3}
    with pytest.raises(ValueError, match="above 0"):
        gumbel(log_ratios, temperature=0.0, seed=0)


def test_ranks_put_no_numbers_last():
    assert ranks(np.array([1, np.nan, 3, 1], np.float32)).tolist() == [1, 3, 0, 2]
