"""Egocentric Understanding: the robot's own hand, what it holds, what is within its reach, what its camera sees."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.coupled.goal import goal
from embodied_midtrain.coupled.moment import DIGITS, Asked, Moment, Shot
from embodied_midtrain.coupled.phases import LEAST_RANGE
from embodied_midtrain.coupled.projection import LEAST_PIXELS, finger_outline
from embodied_midtrain.coupled.spatial import CLOSER
from embodied_midtrain.samples import REGION_MARK, Region
from embodied_midtrain.simulation.truth import FINGERS, FIRST, WRIST

NAMING = ("what-at", "where", "box")
"""Asked of the hand's camera only: the agent's is Grounding's."""
OWN = ("hand", "held", "opening", "in-reach", "nearest", "hand-sees")
KINDS = ("holding", *NAMING, *OWN)
REACH, REACH_MARGIN = 15, 2
"""Centimetres from the gripper to a thing's middle, and how near to that nothing is asked."""
VISIBLE = 0.6
"""Part of the fingers' outline of which at least so much is seen where the hand is pointed to."""
SHUT, OPEN = 0.15, 0.85
"""Parts of the gripper's range in this episode up to and from which it is called closed and open."""


def egocentric(moment: Moment) -> Iterator[Asked]:
    """Questions of `KINDS`."""
    for asked in goal(moment):
        if asked.kind == "holding" or (asked.kind in NAMING and asked.views == (WRIST,)):
            yield asked
    yield from _hand(moment, moment.main)
    yield from _held(moment, moment.main)
    yield from _opening(moment, moment.main)
    if moment.trace.things is None or moment.place is None:
        moment.leave("places of gripper and things not known", ("in-reach", "nearest"))
    else:
        yield from _reach(moment, moment.main, moment.place)
    yield from _hand_sees(moment, moment.main)


def _hand(moment: Moment, shot: Shot) -> Iterator[Asked]:
    found = None if moment.place is None else shot.hand(moment.trace, (moment.step,))
    if found is None or moment.trace.fingers is None or shot.view.seen is None:
        moment.leave("no calibration", ("hand",))
        return
    outline, visible = finger_outline(moment.trace, shot.view, shot.look), int(shot.pixels[FINGERS])
    if outline is None or visible < max(LEAST_PIXELS, VISIBLE * int(outline.sum())):
        moment.leave("the fingers are hidden", ("hand",))
        return
    seen = found[0, :2]
    if not ((seen >= 0).all() and (seen < 1).all()):
        moment.leave("the fingertips are outside the picture", ("hand",))
        return
    yield Asked(
        "hand",
        (
            "Point to the place between the robot's fingertips.",
            "Where in the picture are the tips of the gripper?",
            "Give the point between the gripper's two fingers.",
        ),
        REGION_MARK,
        ("hand",),
        shown=(Region("point", (round(float(seen[0]), DIGITS), round(float(seen[1]), DIGITS))),),
        views=(shot.name,),
    )


def _held(moment: Moment, shot: Shot) -> Iterator[Asked]:
    trace = moment.trace
    if trace.held is None or trace.touched is None or trace.things is None:
        moment.leave("what is held not known", ("held",))
        return
    held, touched = int(trace.held[moment.step]), int(trace.touched[moment.step])
    if (held < 0) != (touched < 0):
        moment.leave("touched but not held", ("held",))
        return
    if held >= 0 and not trace.things.unique(held):
        moment.leave("name means two things", ("held",))
        return
    yield Asked(
        "held",
        (
            "What does the robot hold in its gripper? Say 'nothing' where it is empty.",
            "Name the thing between the robot's fingers, or say 'nothing'.",
            "Which object is in the gripper ('nothing' for none)?",
        ),
        moment.called(held) if held >= 0 else "nothing",
        ("held", held),
        views=(shot.name,),
    )


def _opening(moment: Moment, shot: Shot) -> Iterator[Asked]:
    if moment.trace.opening is None:
        moment.leave("opening of the gripper not known", ("opening",))
        return
    low, high = np.quantile(moment.trace.opening, [0.02, 0.98])
    part = (float(moment.trace.opening[moment.step]) - low) / max(high - low, 1e-6)
    if high - low < LEAST_RANGE or SHUT < part < OPEN:
        moment.leave("the gripper is neither open nor closed", ("opening",))
        return
    yield Asked(
        "opening",
        (
            "Are the fingers of the gripper open or closed (whether on something or empty)?",
            "Is the robot's gripper open or closed?",
            "Which is the state of the gripper: open or closed?",
        ),
        "open" if part >= OPEN else "closed",
        ("opening",),
        views=(shot.name,),
    )


def _reach(moment: Moment, shot: Shot, place: NDArray[np.float64]) -> Iterator[Asked]:
    assert moment.trace.things is not None
    away = {
        thing: 100 * float(np.linalg.norm(moment.centre(thing) - place)) for thing in range(len(moment.trace.things))
    }
    for thing in shot.named:
        if abs(away[thing] - REACH) < REACH_MARGIN:
            continue
        name = moment.called(thing)
        yield Asked(
            "in-reach",
            (
                f"Is the middle of the {name} less than {REACH} cm from the gripper? Answer yes or no.",
                f"Can the gripper get to the middle of the {name} by moving less than {REACH} cm? Answer yes or no.",
                f"Yes or no: does the {name} have its middle within {REACH} cm of the robot's fingertips?",
            ),
            "yes" if away[thing] < REACH else "no",
            ("in-reach", thing),
            subject=name,
            views=(shot.name,),
        )
    # Of which a little is seen may be the nearest, too.
    order = sorted((thing for thing in away if shot.pixels[FIRST + thing]), key=lambda thing: away[thing])
    if len(order) < 2:
        moment.leave("fewer than two things in view", ("nearest",))
        return
    first, second = away[order[0]], away[order[1]]
    if second - first < max(100 * CLOSER[0], CLOSER[1] * first):
        moment.leave("two things are about as near", ("nearest",))
    elif order[0] in shot.named:
        yield Asked(
            "nearest",
            (
                "Which of the objects in view can the gripper get to by the shortest way?",
                "Name the object in view that is nearest to the robot's gripper.",
                "What is closest to the gripper?",
            ),
            moment.called(order[0]),
            ("nearest", order[0]),
            subject=", ".join(sorted(moment.called(thing) for thing in order)),
            views=(shot.name,),
        )


def _hand_sees(moment: Moment, shot: Shot) -> Iterator[Asked]:
    """From the agent's picture: what the other camera shows, wholly hidden or clearly in view."""
    wrist = moment.wrist
    if wrist is None or wrist is shot or moment.trace.things is None:
        moment.leave("no camera on the hand", ("hand-sees",))
        return
    for thing in shot.named:
        seen = bool(wrist.pixels[FIRST + thing])
        if seen == (thing in wrist.clear):
            name = moment.called(thing)
            yield Asked(
                "hand-sees",
                (
                    f"A camera on the robot's hand looks at its fingertips. Does it see the {name} now? "
                    "Answer yes or no.",
                    f"Is the {name} in view of the camera on the robot's hand? Answer yes or no.",
                ),
                "yes" if seen else "no",
                ("hand-sees", thing),
                subject=name,
                views=(shot.name,),
            )
