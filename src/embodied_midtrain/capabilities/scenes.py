"""Spatial and Grounding questions about scenes without a robot: those of the pool's scene sources, and more.

What `coupled` asks of a look it can be asked of a scene as well, which is an episode of one look without a hand.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from embodied_midtrain.coupled.moment import Moment
from embodied_midtrain.coupled.spatial import spatial as spatial_of_moment
from embodied_midtrain.coupled.trace import Named, Things, Trace, View
from embodied_midtrain.samples import REGION_MARK
from embodied_midtrain.simulation.truth import AGENT, FIRST
from embodied_midtrain.sources.asking import Question
from embodied_midtrain.sources.registry.scenes_questions import (
    affordances,
    extremes,
    free_space,
    nearest,
    pointing,
    relations,
)
from embodied_midtrain.sources.registry.scenes_truth import Scene, Thing

SPATIAL = (
    "side-choice",
    "side-check",
    "depth-choice",
    "depth-check",
    "taller",
    "extreme",
    "nearest-to",
    "gap",
    "orientation",
)
GROUNDING = ("point", "box", "what-at", "grasp", "purpose", "free-space", "referred")
ELONGATED = 1.6
"""A thing whose outline from above is this much longer than wide has a long side."""
AWAY, ACROSS = 25.0, 65.0
"""Angles between the long side and the camera's direction, degrees, up to and from which they are called so."""


def spatial(scene: Scene) -> Iterator[Question]:
    """Questions of `SPATIAL`."""
    yield from relations(scene)
    yield from extremes(scene)
    yield from nearest(scene)
    moment = Moment(as_trace(scene), 0, (), np.random.default_rng(0))
    yield from (asked for asked in spatial_of_moment(moment) if asked.kind == "gap")
    yield from orientations(scene)


def grounding(scene: Scene) -> Iterator[Question]:
    """Questions of `GROUNDING`."""
    yield from pointing(scene)
    yield from (asked for asked in affordances(scene) if asked.kind in GROUNDING)
    yield from free_space(scene)
    yield from referred(scene)


def as_trace(scene: Scene) -> Trace:
    """The scene as an episode of one look that knows no gripper."""
    seen = np.zeros(scene.size, np.uint8)
    for number, thing in enumerate(scene.things):
        seen[thing.mask] = FIRST + number
    outlines = np.array([[scene.outline_area(thing) for thing in scene.things]], np.float32)
    low, high = (np.array([[getattr(thing, end) for thing in scene.things]], np.float32) for end in ("low", "high"))
    things = Things(tuple(Named(thing.name) for thing in scene.things), low, high)
    view = View(AGENT, scene.picture[None], [scene.camera.pinhole(scene.size)], seen[None], outlines)
    return Trace(scene.id, "", "", np.zeros(1, np.int64), (view,), things=things)


def long_side(thing: Thing) -> float | None:
    """Which way the long side of its outline from above goes, degrees from x towards y; None where none is longer."""
    angles = np.deg2rad(np.arange(0.0, 180.0, 2.0))
    along = thing.points[:, :2] @ np.stack([np.cos(angles), np.sin(angles)])
    width = along.max(0) - along.min(0)
    narrow = int(width.argmin())
    length = width[(narrow + 45) % 90]
    return float((2 * narrow + 90) % 180) if length >= ELONGATED * width[narrow] else None


def orientations(scene: Scene) -> Iterator[Question]:
    """How a long thing lies to the camera."""
    for thing in scene.named:
        side = long_side(thing)
        if side is None:
            continue
        off = abs((side - scene.camera.azimuth + 90) % 180 - 90)
        if AWAY < off < ACROSS:
            continue
        yield Question(
            "orientation",
            (
                f"Does the long side of the {thing.name} run across the picture or away from the camera?",
                f"How does the {thing.name} lie: with its long side across the picture, or away from the camera?",
                f"Which way does the {thing.name} point lengthwise, across or away, as the camera looks?",
            ),
            "away" if off <= AWAY else "across",
            ("orientation", thing.name),
            subject=thing.name,
        )


REFERRED = {
    "nearest": "the object that is nearest to the camera",
    "farthest": "the object that is farthest from the camera",
    "leftmost": "the leftmost object on the table",
    "rightmost": "the rightmost object on the table",
}


def referred(scene: Scene) -> Iterator[Question]:
    """Point to a thing that is told by where it is, not by its name."""
    told = [(REFERRED[str(asked.about[0])], asked.answer) for asked in extremes(scene)]
    told += [(f"the object that is nearest to the {asked.about[0]}", asked.answer) for asked in nearest(scene)]
    for words, name in told:
        (thing,) = (thing for thing in scene.named if thing.name == name)
        yield Question(
            "referred",
            (f"Point to {words}.", f"Where is {words}?", f"Give a point on {words}."),
            REGION_MARK,
            ("referred", words, name),
            shown=(scene.point_on(thing.mask),),
        )
