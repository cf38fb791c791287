"""Calibrations that do not fit the pictures are found out: by the fingers' masks, and by motion alone."""

from dataclasses import replace

import numpy as np
import pytest

from embodied_midtrain.coupled.projection import CLOSE, finger_fit, fits, motion_rank
from embodied_midtrain.simulation.camera import Pinhole
from tests.coupled import made

WRONG = {
    "mirrored": lambda c: Pinhole((-c.focal[0], c.focal[1]), c.middle, c.position, c.axes),
    "upside down": lambda c: Pinhole((c.focal[0], -c.focal[1]), c.middle, c.position, c.axes),
    "turned": lambda c: Pinhole((-c.focal[0], -c.focal[1]), c.middle, c.position, c.axes),
    "shifted": lambda c: Pinhole(c.focal, (c.middle[0] + 12, c.middle[1]), c.position, c.axes),
    "behind": lambda c: Pinhole(c.focal, c.middle, c.position, -c.axes),
}


def bent(view, how):
    return replace(view, cameras=[how(camera) for camera in view.cameras])


@pytest.mark.parametrize("name", ["agent", "wrist"])
def test_the_right_one_fits(name):
    trace = made.trace()
    fit = finger_fit(trace, trace.view(name))
    assert len(fit.offsets) >= 10 and max(fit.offsets) <= CLOSE
    assert fits(trace, trace.view(name)) is True


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_one_does_not(how):
    trace = made.trace()
    assert fits(trace, bent(trace.view("agent"), WRONG[how])) is False


def test_without_masks_motion_tells():
    trace = made.without(made.trace(), seen=1, fingers=1)
    view = trace.view("agent")
    assert motion_rank(trace, view) > 0.9 and fits(trace, view) is True
    for how in ("mirrored", "turned", "behind"):
        assert fits(trace, bent(view, WRONG[how])) is False, how


def test_what_cannot_be_judged_is_not():
    trace = made.trace()
    still = replace(trace, place=np.repeat(trace.place[:1], len(trace.place), 0))
    view = replace(trace.view("agent"), seen=None)
    assert fits(still, view) is None
    assert fits(trace, replace(view, cameras=None)) is None
    # Empty masks: the fingers are never seen.
    hidden = replace(trace.view("agent"), seen=np.zeros_like(trace.view("agent").seen))
    assert finger_fit(trace, hidden).median is None and fits(trace, hidden) is None
