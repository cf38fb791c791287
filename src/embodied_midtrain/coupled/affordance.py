"""Task-oriented, what can be taken and where: labels from where this episode's gripper itself took hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from embodied_midtrain.coupled.moment import DIGITS, Asked, Moment, Shot
from embodied_midtrain.coupled.phases import Phase
from embodied_midtrain.samples import REGION_MARK, Region
from embodied_midtrain.simulation.truth import NOTHING

KINDS = ("grasp-point", "graspable")
STILL = 0.01
"""A thing that moves less before it is taken lies still, metres."""
ON_MASK = 0.03
"""The grasp point may be this far from what is seen of the thing, part of the picture's height."""
OFF = (0.05, 0.3)
"""How far from a thing regions of the surroundings are taken, part of the picture."""
TRIES = 6
"""Of them, for each thing."""


def affordance(moment: Moment) -> Iterator[Asked]:
    """Questions of `KINDS`."""
    yield from _grasp_point(moment, moment.main)
    yield from _graspable(moment, moment.main)


def grasps(phases: tuple[Phase, ...]) -> list[tuple[int, int]]:
    """The step at which each grasp is complete, and the thing (-1: not known)."""
    return [(phase.stop - 1, phase.thing) for phase in phases if phase.kind == "grasp"]


def _grasp_point(moment: Moment, shot: Shot) -> Iterator[Asked]:
    trace, kind = moment.trace, ("grasp-point",)
    if trace.place is None:
        moment.leave("place of the gripper not known", kind)
        return
    coming = next(((step, thing) for step, thing in grasps(moment.phases) if step > moment.step), None)
    if coming is None:
        moment.leave("no grasp ahead", kind)
        return
    step, thing = coming
    found = shot.hand(trace, (step,))
    if found is None:
        moment.leave("no calibration", kind)
        return
    seen = found[0]
    if np.isnan(seen).any():
        moment.leave("the track of the gripper was lost", kind)
        return
    if seen[2] <= 0 or not (seen[:2] >= 0).all() or not (seen[:2] < 1).all():
        moment.leave("grasp point out of view", kind)
        return
    if thing >= 0 and trace.things is not None:
        later = int(np.searchsorted(trace.looks, step, side="right")) - 1
        if np.linalg.norm(trace.things.centres[later, thing] - trace.things.centres[moment.look, thing]) > STILL:
            moment.leave("the thing moves before it is taken", kind)
            return
        if thing not in shot.clear or not _near(shot, thing, seen):
            moment.leave("grasp point hidden", kind)
            return
    name = moment.called(thing) if thing >= 0 and trace.things is not None else "object"
    at = Region("point", (round(float(seen[0]), DIGITS), round(float(seen[1]), DIGITS)))
    yield Asked(
        "grasp-point",
        (
            f"The robot is told: {trace.instruction}. Where should the gripper take hold of the {name}?",
            f"Task: {trace.instruction}. Point to the best place to grasp the {name}.",
            f"To {trace.instruction}, at which point of the picture do the fingers close on the {name}?",
        ),
        REGION_MARK,
        ("grasp-point", thing, step),
        shown=(at,),
        views=(shot.name,),
    )


def _near(shot: Shot, thing: int, seen: np.ndarray) -> bool:
    """Whether a point of the picture lies on a thing, or almost."""
    height, width = shot.view.size
    rows, columns = np.nonzero(shot.view.mask(shot.look, thing))
    off = np.hypot(rows + 0.5 - seen[1] * height, columns + 0.5 - seen[0] * width)
    return bool(off.min() <= ON_MASK * height)


def _graspable(moment: Moment, shot: Shot) -> Iterator[Asked]:
    things = moment.trace.things
    if things is None or shot.view.seen is None:
        moment.leave("masks of things not known", ("graspable",))
        return
    taken = {thing for _, thing in grasps(moment.phases)}
    for thing in shot.clear:
        can = True if thing in taken else things.named[thing].grasped
        if can is None:
            moment.leave("not clear whether it can be grasped", ("graspable",))
            continue
        yield _region(shot, shot.boxes[thing], can, thing)
        yield from _beside(moment, shot, shot.boxes[thing])


def _beside(moment: Moment, shot: Shot, box: Region) -> Iterator[Asked]:
    """Regions of the size of a thing's, some way off, that show nothing: by size and place they might be things'."""
    height, width = shot.view.size
    left, top, right, bottom = (round(v * n) for v, n in zip(box.values, (width, height, width, height), strict=True))
    for way, far in zip(moment.rng.uniform(0, 2 * np.pi, TRIES), moment.rng.uniform(*OFF, TRIES), strict=True):
        across, down = round(np.cos(way) * far * width), round(np.sin(way) * far * height)
        edges = (left + across, top + down, right + across, bottom + down)
        inside = edges[0] >= 0 and edges[2] <= width and edges[1] >= 0 and edges[3] <= height
        if inside and (shot.seen[edges[1] : edges[3], edges[0] : edges[2]] == NOTHING).all():
            parts = (edges[0] / width, edges[1] / height, edges[2] / width, edges[3] / height)
            yield _region(shot, Region("box", tuple(round(part, DIGITS) for part in parts)), False, -1)


def _region(shot: Shot, box: Region, can: bool, thing: int) -> Asked:
    return Asked(
        "graspable",
        (
            f"Can the gripper take hold of what is in {REGION_MARK}? Answer yes or no.",
            f"Is there something to grasp in the region {REGION_MARK}? Answer yes or no.",
            f"Yes or no: does {REGION_MARK} hold a thing that the gripper can pick up?",
        ),
        "yes" if can else "no",
        ("graspable", thing),
        pointed=(box,),
        views=(shot.name,),
    )
