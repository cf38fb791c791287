"""Scene-grounding, where things are: to the gripper, to each other, and in the other camera's picture."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.coupled.moment import Asked, Moment, Shot
from embodied_midtrain.samples import REGION_MARK

KINDS = ("direction", "distance", "side", "gap", "nearer", "cross-view", "same-thing")
WAYS = ("forward", "back", "left", "right", "up", "down")
DOMINANT = 1.5
"""The main direction is this much longer than the next one."""
LEAST_WAY = 0.025
"""Metres; nearer things have no direction."""
GRID = 5
"""Centimetres that distances are rounded to."""
MARGIN = 0.5
"""Distances nearer than this to where rounding changes are not asked about, centimetres."""
ASIDE = 0.07
"""Least distance in the picture for left and right, part of its width."""
CLOSER = (0.04, 0.25)
"""By how much, metres and part, one thing has to be nearer than the other."""


def spatial(moment: Moment) -> Iterator[Asked]:
    """Questions of `KINDS`."""
    shot = moment.main
    if moment.trace.things is None:
        moment.leave("positions of things not known", KINDS)
        return
    if not shot.named:
        moment.leave("no thing clearly in view", KINDS)
        return
    yield from _between_things(moment, shot)
    yield from _other_camera(moment, shot)
    if moment.place is None:
        moment.leave("place of the gripper not known", ("direction", "distance", "nearer"))
        return
    yield from _from_gripper(moment, shot, moment.place)


def offset(way: NDArray[np.float64], forward: NDArray[np.float64]) -> NDArray[np.float64]:
    """A world vector as a robot that faces `forward` says it: along `WAYS`, the negative ones 0. [6]"""
    left = np.cross((0.0, 0.0, 1.0), forward)
    parts = np.array([way @ forward, -(way @ forward), way @ left, -(way @ left), way[2], -way[2]])
    return np.maximum(parts, 0.0)


def main_way(way: NDArray[np.float64], forward: NDArray[np.float64]) -> str | None:
    """The one of `WAYS` that a vector mainly goes; None where two are near to each other, or it is short."""
    parts = offset(way, forward)
    order = np.argsort(parts)[::-1]
    clear = parts[order[0]] >= max(LEAST_WAY, DOMINANT * parts[order[1]])
    return WAYS[int(order[0])] if clear else None


def rounded(metres: float) -> str | None:
    """A distance in words; None near to where rounding changes."""
    centimetres = metres * 100
    if abs((centimetres + GRID / 2) % GRID) < MARGIN or (centimetres + GRID / 2) % GRID > GRID - MARGIN:
        return None
    return f"{GRID * round(centimetres / GRID)} cm"


def _from_gripper(moment: Moment, shot: Shot, place: NDArray[np.float64]) -> Iterator[Asked]:
    if moment.trace.forward is None:
        moment.leave("the way the robot faces not known", ("direction",))
    away = {}
    for thing in shot.named:
        name, way = moment.called(thing), moment.centre(thing) - place
        away[thing] = float(np.linalg.norm(way))
        if moment.trace.forward is not None and (main := main_way(way, moment.trace.forward)) is not None:
            yield Asked(
                "direction",
                (
                    f"From the robot's own point of view, in which main direction is the {name} from the gripper: "
                    "forward, back, left, right, up or down?",
                    f"Which way must the gripper mainly go to get to the {name}, as the robot sees it? "
                    "Answer forward, back, left, right, up or down.",
                    f"Main direction from the gripper to the {name}, in the robot's own terms "
                    "(forward, back, left, right, up, down)?",
                ),
                main,
                ("direction", thing),
                subject=name,
                views=(shot.name,),
            )
        if (far := rounded(away[thing])) is not None:
            yield Asked(
                "distance",
                (
                    f"How far is the {name} from the gripper, to the nearest {GRID} cm?",
                    f"What is the distance between the gripper and the middle of the {name}, in steps of {GRID} cm?",
                    f"Estimate how many centimetres lie between the gripper and the {name} (a multiple of {GRID}).",
                ),
                far,
                ("distance", thing),
                subject=name,
                views=(shot.name,),
            )
    for a, b in itertools.permutations(shot.named, 2):
        if away[b] - away[a] >= max(CLOSER[0], CLOSER[1] * away[a]):
            names = [moment.called(n) for n in (a, b)]
            for first, second in (names, names[::-1]):
                yield Asked(
                    "nearer",
                    (
                        f"Which is nearer to the gripper, the {first} or the {second}?",
                        f"Is the {first} or the {second} closer to the gripper?",
                        f"The gripper has the least way to which one: the {first} or the {second}?",
                    ),
                    names[0],
                    ("nearer", a, b),
                    subject=" ".join(sorted(names)),
                    views=(shot.name,),
                )


def _between_things(moment: Moment, shot: Shot) -> Iterator[Asked]:
    if len(shot.named) < 2:
        moment.leave("fewer than two things clearly in view", ("side", "gap", "nearer"))
    for a, b in itertools.permutations(shot.named, 2):
        first, second = moment.called(a), moment.called(b)
        aside = shot.points[b].values[0] - shot.points[a].values[0]
        if abs(aside) >= ASIDE:
            yield Asked(
                "side",
                (
                    f"In the picture, is the {first} to the left or to the right of the {second}?",
                    f"On which side of the {second} does the picture show the {first}: left or right?",
                    f"As the camera sees it, does the {first} lie left or right of the {second}?",
                ),
                "left" if aside > 0 else "right",
                ("side", a, b),
                subject=f"{first} {second}",
                views=(shot.name,),
            )
        if a < b and (far := rounded(float(np.linalg.norm(moment.centre(a) - moment.centre(b))))) is not None:
            yield Asked(
                "gap",
                (
                    f"How far apart are the {first} and the {second}, to the nearest {GRID} cm?",
                    f"What is the distance from the middle of the {first} to that of the {second}, "
                    f"in steps of {GRID} cm?",
                    f"Estimate how many centimetres lie between the {first} and the {second} (a multiple of {GRID}).",
                ),
                far,
                ("gap", a, b),
                subject=f"{first} {second}",
                views=(shot.name,),
            )


def _other_camera(moment: Moment, shot: Shot) -> Iterator[Asked]:
    other = moment.wrist
    if other is None or other is shot:
        moment.leave("no second camera", ("cross-view", "same-thing"))
        return
    both = [thing for thing in shot.clear if thing in other.clear]
    if not both:
        moment.leave("nothing clearly in view of both cameras", ("cross-view", "same-thing"))
    for thing in both:
        here, there = shot.points[thing], other.points[thing]
        for views, asked, answered in (
            ((shot.name, other.name), here, there),
            ((other.name, shot.name), there, here),
        ):
            yield Asked(
                "cross-view",
                (
                    f"Two cameras look at one scene. In the first picture something is at {REGION_MARK}. "
                    "Where is the same thing in the second picture?",
                    f"Find the thing that the first picture shows at {REGION_MARK} in the second picture.",
                    f"The first picture has a thing at {REGION_MARK}. Point to it in the second picture.",
                ),
                REGION_MARK,
                ("cross-view", thing),
                (asked,),
                (answered,),
                views=views,
            )
    for a, b in itertools.product(shot.clear, both):
        yield Asked(
            "same-thing",
            (
                f"Is the thing at {REGION_MARK} in the first picture the one at {REGION_MARK} in the second? "
                "Answer yes or no.",
                f"Two views of one scene: do {REGION_MARK} in the first picture and {REGION_MARK} in the second show "
                "the same thing? Answer yes or no.",
            ),
            "yes" if a == b else "no",
            ("same-thing", a, b),
            (shot.points[a], other.points[b]),
            views=(shot.name, other.name),
        )
