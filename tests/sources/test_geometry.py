"""Coordinates in text become geometry, and nothing else does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_midtrain.samples import REGION_MARK, BadSample
from embodied_midtrain.sources.geometry import lift

MARK = REGION_MARK


@pytest.mark.parametrize(
    ("convention", "text", "said", "regions"),
    [
        ("unit", "[(0.461, 0.527), (.5,1.0)]", f"[{MARK}, {MARK}]", [(0.461, 0.527), (0.5, 1.0)]),
        ("unit", "The cup [0.1, 0.2, 0.5, 0.75] is red.", f"The cup {MARK} is red.", [(0.1, 0.2, 0.5, 0.75)]),
        ("unit", "(0, 1) is a score, (2.5, 0.5) too; [0.5, 0.2, 0.1, 0.9] is no box", None, []),
        ("thousand", "<box>(100,200),(300,400)</box>", MARK, [(0.1, 0.2, 0.3, 0.4)]),
        ("thousand", "at (500, 1000), not (1001, 3)", f"at {MARK}, not (1001, 3)", [(0.5, 1.0)]),
        ("none", "(0.5, 0.5)", None, []),
    ],
)
def test_points_and_boxes(convention, text, said, regions):
    found, lifted = lift(text, convention)
    assert found == (text if said is None else said)
    assert [r.values for r in lifted] == [pytest.approx(r) for r in regions]


def test_the_mark_itself_is_refused():
    with pytest.raises(BadSample, match="bad geometry"):
        lift(f"where is {MARK}?", "none")


@given(st.text(alphabet="()[], .0123456789abc<>box/", max_size=80), st.sampled_from(["unit", "thousand"]))
def test_any_text_gives_as_many_marks_as_regions(text, convention):
    said, regions = lift(text, convention)
    assert said.count(MARK) == len(regions)
    assert all(0 <= v <= 1 for r in regions for v in r.values)
