"""Action ranges: quantiles, a floor, and the way back."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.robots.actions import FLOOR, ActionNormaliser, check_specs
from tests.robots.test_hdf5 import SPEC


def test_the_quantiles_become_the_ends_of_the_range():
    ramp = np.linspace(-3, 5, 1001, dtype=np.float32)[:, None]
    fitted = ActionNormaliser.fit([ramp[:400], ramp[400:]])
    # 1 % and 99 % of a ramp from -3 to 5.
    ends = np.array([[-2.92], [4.92], [1.0]], np.float32)
    assert fitted.apply(ends).ravel() == pytest.approx([-1, 1, 0], abs=1e-5)
    assert fitted.apply(np.array([[5.0]], np.float32)) > 1, "outliers stay outside"


def test_wild_actions_do_not_squeeze_the_others():
    calm = np.random.default_rng(0).uniform(-1, 1, (1000, 2)).astype(np.float32)
    wild = calm.copy()
    wild[0] = 1e6
    assert ActionNormaliser.fit([wild]).half == pytest.approx(ActionNormaliser.fit([calm]).half, rel=0.05)


def test_a_dimension_that_does_not_move_stays_small():
    still = np.zeros((100, 2), np.float32)
    still[:, 1] = np.linspace(-1, 1, 100)
    fitted = ActionNormaliser.fit([still])
    assert fitted.half[0] == FLOOR
    assert np.isfinite(fitted.apply(still)).all()


@given(arrays(np.float32, (7, 3), elements=st.floats(-10, 10, width=32)))
def test_back_and_forth(actions):
    fitted = ActionNormaliser.fit([actions])
    assert np.allclose(fitted.invert(fitted.apply(actions)), actions, atol=1e-4)


def test_a_limit_cuts_off_and_is_kept():
    fitted = ActionNormaliser((0.0,), (1.0,), limit=0.65)
    scaled = fitted.apply(np.array([[0.9], [-0.9], [0.325]], np.float32))
    assert scaled.ravel() == pytest.approx([1, -1, 0.5])
    assert fitted.invert(scaled).ravel() == pytest.approx([0.65, -0.65, 0.325])
    assert ActionNormaliser.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted


def test_wrong_input_is_named():
    fitted = ActionNormaliser((0.0, 0.0), (1.0, 1.0))
    with pytest.raises(ValueError, match="width 3; this range was fitted to 2"):
        fitted.apply(np.zeros((4, 3), np.float32))
    with pytest.raises(ValueError, match="no actions"):
        ActionNormaliser.fit([])
    with pytest.raises(ValueError, match="no numbers"):
        ActionNormaliser.fit([np.full((3, 2), np.nan, np.float32)])
    with pytest.raises(ValueError, match="different shapes"):
        ActionNormaliser.fit([np.zeros((3, 2), np.float32), np.zeros((3, 4), np.float32)])
    with pytest.raises(ValueError, match="not an action range"):
        ActionNormaliser.from_json({"middle": [0.0]})
    for half, limit in ((0.0, None), (np.inf, None), (1.0, 2.0)):
        with pytest.raises(ValueError):
            ActionNormaliser((0.0,), (half,), limit)


def test_specs_that_differ_are_refused_with_the_difference():
    check_specs(SPEC, SPEC, wanted_by="the simulator", given_by="the policy")
    with pytest.raises(StageError, match=r"rate: 10\.0 against 20\.0"):
        check_specs(SPEC, replace(SPEC, rate=20.0), wanted_by="the simulator", given_by="the policy")
