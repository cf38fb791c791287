import numpy as np
import pytest

from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.policies.codec import ActionCodec
from embodied_midtrain.robots.actions import ActionNormaliser


def codec(closed=1, low=(-1.0, -1.0, 0.0), high=(1.0, 1.0, 0.08)):
    spec = ActionSpec(("x", "y", "finger"), "delta", "world", "none", 2, closed, low, high, 10.0)
    actions = np.random.default_rng(0).uniform(low, high, (500, 3)).astype(np.float32)
    return ActionCodec(spec, ActionNormaliser.fit([actions])), actions


@pytest.mark.parametrize("closed", [1, -1])
def test_there_and_back(closed):
    both, actions = codec(closed)
    arm, shut = both.encode(actions)
    assert arm.shape == (500, 2) and np.abs(arm).max() <= 1.0
    back = both.decode(arm, shut > 0.5)
    inner = (np.abs(arm) < 1.0).all(axis=1)
    assert inner.mean() > 0.9
    assert np.abs(back[inner, :2] - actions[inner, :2]).max() < 1e-5
    # The gripper comes back as the bound on its side.
    assert set(np.unique(back[:, 2])) == {np.float32(0.0), np.float32(0.08)}
    assert ((back[:, 2] > 0.04) == (actions[:, 2] > 0.04)).all()
    assert ((shut == 1) == ((actions[:, 2] - 0.04) * closed > 0)).all()


def test_decoded_actions_stay_within_the_bounds():
    both, _ = codec()
    wide = ActionCodec(both.spec, ActionNormaliser((0.0, 0.0, 0.0), (5.0, 5.0, 5.0)))
    actions = wide.decode(np.ones((2, 4, 2), np.float32), np.ones((2, 4), bool))
    assert actions.shape == (2, 4, 3) and actions.dtype == np.float32
    assert (actions <= both.spec.high).all() and (actions >= both.spec.low).all()


def test_statistics_of_another_data_set_are_refused_by_name():
    both, _ = codec()
    assert both.checked() is both
    with pytest.raises(ValueError, match=r"2 dimensions.*3 \(x, y, finger\).*another data set"):
        ActionCodec(both.spec, ActionNormaliser((0.0, 0.0), (1.0, 1.0))).checked()
    with pytest.raises(ValueError, match=r"finger runs from 0 to 0\.8.*bounds are 0 and 0\.08.*another data set"):
        ActionCodec(both.spec, ActionNormaliser((0.0, 0.0, 0.4), (0.5, 0.5, 0.4))).checked()
    # A dimension that stands still at its bound is widened to the floor, and is fine.
    still = np.tile(np.float32([1.0, -1.0, 0.08]), (50, 1))
    ActionCodec(both.spec, ActionNormaliser.fit([still])).checked()
