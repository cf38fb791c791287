"""Action-aligned: the gripper's future path in the picture, to the end of the present sub-action."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from embodied_midtrain.coupled.moment import DIGITS, Asked, Moment, Shot
from embodied_midtrain.coupled.trace import Trace
from embodied_midtrain.coupled.words import said
from embodied_midtrain.samples import REGION_MARK, Region

KINDS = ("path", "path-end")
POINTS = 10
"""At most."""
LEAST_MOVE = 0.04
"""A path that stays within this part of the picture is none."""


def trajectory(moment: Moment) -> Iterator[Asked]:
    """Questions of `KINDS`."""
    trace = moment.trace
    if trace.place is None or moment.phase is None:
        moment.leave("place of the gripper not known", KINDS)
        return
    phase = moment.phases[moment.phase]
    found = path(moment.main, trace, range(moment.step, phase.stop))
    if isinstance(found, str):
        moment.leave(found, KINDS)
        return
    doing, order, views = said(trace, phase), trace.instruction, (moment.main.name,)
    yield Asked(
        "path",
        (
            f"The robot is told: {order}. It is to {doing}. Give the gripper's path in the picture as up to "
            f"{POINTS} points.",
            f"Task: {order}. Sub-task: {doing}. Which way points does the gripper pass in the picture?",
            f"While the robot is to {doing} (in order to {order}), where does its gripper move? List up to "
            f"{POINTS} points of the picture.",
        ),
        ", ".join([REGION_MARK] * len(found)),
        ("path", phase.stop),
        shown=found,
        views=views,
    )
    yield Asked(
        "path-end",
        (
            f"The robot is told: {order}. It is to {doing}. Where in the picture will its gripper be then?",
            f"Task: {order}. Sub-task: {doing}. Point to where the gripper ends.",
        ),
        REGION_MARK,
        ("path-end", phase.stop),
        shown=found[-1:],
        views=views,
    )


def path(shot: Shot, trace: Trace, steps: range) -> tuple[Region, ...] | str:
    """The gripper at these steps as at most `POINTS` points of a picture, even in time, the last one included.

    Where that cannot be: why.
    """
    chosen = np.unique(np.linspace(steps.start, steps.stop - 1, min(POINTS, len(steps))).round().astype(int))
    seen = shot.hand(trace, chosen.tolist())
    if seen is None:
        return "no calibration"
    if np.isnan(seen).any():
        return "the track of the gripper was lost"
    if (seen[:, 2] <= 0).any() or (seen[:, :2] < 0).any() or (seen[:, :2] > 1).any():
        return "path leaves the picture"
    if np.ptp(seen[:, :2], axis=0).max() < LEAST_MOVE:
        return "the gripper hardly moves"
    return tuple(Region("point", (round(float(x), DIGITS), round(float(y), DIGITS))) for x, y, _ in seen)
