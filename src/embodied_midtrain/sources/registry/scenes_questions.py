"""Questions with exact answers about a scene, of many kinds, and which of them to ask.

Every function yields all questions of its kinds that have one right answer; near ties, unclear things and names that
mean two things give none. `scenes_asking` picks from them.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np

from embodied_midtrain.samples import REGION_MARK
from embodied_midtrain.sources.asking import Question
from embodied_midtrain.sources.registry.scenes_catalogue import COUNTED
from embodied_midtrain.sources.registry.scenes_truth import Scene, Thing, widest_spot

MIN_ASIDE = 0.07
"""Least distance in the picture for left and right, part of its width."""
MIN_AWAY = 0.05
"""Least distance along the ground for in front and behind, metres."""
MAX_OVERLAP = 0.25
"""Most that two things may overlap in the direction that is asked about, part of the smaller."""
OPENINGS = (0.04, 0.06, 0.08, 0.10, 0.12)
"""Gripper openings, metres."""
FIT_MARGIN = 0.008
"""Widths nearer to the opening than this are not asked about, metres."""


def questions(scene: Scene) -> Iterator[Question]:
    """Everything that can be asked about `scene`."""
    yield from relations(scene)
    yield from extremes(scene)
    yield from nearest(scene)
    yield from pointing(scene)
    yield from counts(scene)
    yield from affordances(scene)
    yield from free_space(scene)


def order(a: tuple[float, float], b: tuple[float, float], least: float) -> int:
    """-1 where interval `a` lies before `b`, 1 where after, 0 where that cannot be said clearly."""
    gap = (b[0] + b[1] - a[0] - a[1]) / 2
    overlap = min(a[1], b[1]) - max(a[0], b[0])
    if abs(gap) < least or overlap > MAX_OVERLAP * min(a[1] - a[0], b[1] - b[0]):
        return 0
    return -1 if gap > 0 else 1


def relations(scene: Scene) -> Iterator[Question]:
    """Left, right, in front, behind, taller: of two named things, as a choice and as yes or no."""
    for a, b in itertools.permutations(scene.named, 2):
        for words, side in (
            (("to the left of", "to the right of"), order(scene.across(a), scene.across(b), MIN_ASIDE)),
            (("in front of", "behind"), order(scene.away(a), scene.away(b), MIN_AWAY)),
        ):
            if side == 0:
                continue
            kind = "side" if words[0].startswith("to") else "depth"
            true = words[0] if side < 0 else words[1]
            yield Question(
                f"{kind}-choice",
                (
                    f"Is the {a.name} {words[0]} or {words[1]} the {b.name}, as the camera sees it?",
                    f"From the camera's view, where is the {a.name}: {words[0]} or {words[1]} the {b.name}?",
                    f"Seen from the camera, does the {a.name} stand {words[0]} or {words[1]} the {b.name}?",
                ),
                true.removeprefix("to the ").removesuffix(" of"),
                (kind, a.name, b.name),
            )
            for word in words:
                yield Question(
                    f"{kind}-check",
                    (
                        f"Is the {a.name} {word} the {b.name}?",
                        f"Seen from the camera, is the {a.name} {word} the {b.name}?",
                        f"True or not, answer yes or no: the {a.name} is {word} the {b.name}.",
                    ),
                    "yes" if word == true else "no",
                    (kind, a.name, b.name, word),
                )
        if scene.camera.elevation > -62 and a.height >= 1.4 * b.height:
            for first, second in ((a, b), (b, a)):
                yield Question(
                    "taller",
                    (
                        f"Which is taller, the {first.name} or the {second.name}?",
                        f"Which one stands higher: the {first.name} or the {second.name}?",
                    ),
                    a.name,
                    (a.name, b.name),
                )


def _winner(things: tuple[Thing, ...], values: list[float], margin: float) -> Thing | None:
    """The thing with the least value, where the next is at least `margin` more."""
    if len(things) < 2:
        return None
    ranked = np.argsort(values, kind="stable")
    clear = values[ranked[1]] - values[ranked[0]] >= margin
    return things[ranked[0]] if clear else None


def extremes(scene: Scene) -> Iterator[Question]:
    """Nearest to the camera, farthest, leftmost, rightmost: of everything that can be seen."""
    seen = tuple(thing for thing in scene.things if thing.mask.any())
    middles = [sum(scene.across(thing)) / 2 for thing in seen]
    distances = [scene.distance(thing) for thing in seen]
    for word, values, margin, phrasings in (
        (
            "nearest",
            distances,
            0.06,
            ("Which object on the table is nearest to the camera?", "What on the table is closest to the camera?"),
        ),
        (
            "farthest",
            [-d for d in distances],
            0.06,
            (
                "Which object on the table is farthest from the camera?",
                "What on the table is farthest away from the camera?",
            ),
        ),
        (
            "leftmost",
            middles,
            0.06,
            ("Which object on the table is farthest to the left?", "What is the leftmost object on the table?"),
        ),
        (
            "rightmost",
            [-m for m in middles],
            0.06,
            ("Which object on the table is farthest to the right?", "What is the rightmost object on the table?"),
        ),
    ):
        best = _winner(seen, values, margin)
        if best in scene.named:
            yield Question("extreme", phrasings, best.name, (word,))


def nearest(scene: Scene) -> Iterator[Question]:
    """Which object stands nearest to another one, or to the robot's gripper."""
    seen = tuple(thing for thing in scene.things if thing.mask.any())
    anchors = [*scene.named, *([scene.gripper] if scene.gripper and scene.is_clear(scene.gripper) else [])]
    for anchor in anchors:
        others = tuple(thing for thing in seen if thing is not anchor)
        gaps = [float(np.linalg.norm(thing.centre - anchor.centre)) for thing in others]
        best = _winner(others, gaps, max(0.04, 0.25 * min(gaps, default=0.0)))
        if best in scene.named:
            yield Question(
                "nearest-to",
                (
                    f"Which object on the table is nearest to the {anchor.name}?",
                    f"What on the table is closest to the {anchor.name}?",
                    f"Name the object that has the least distance to the {anchor.name}.",
                ),
                best.name,
                (anchor.name,),
            )


def pointing(scene: Scene) -> Iterator[Question]:
    """Point to a thing, draw its box, and say what is at a point."""
    for thing in (*scene.named, *([scene.gripper] if scene.gripper and scene.is_clear(scene.gripper) else [])):
        point = scene.point_on(thing.mask)
        yield Question(
            "point",
            (f"Point to the {thing.name}.", f"Where is the {thing.name}?", f"Give a point on the {thing.name}."),
            REGION_MARK,
            (thing.name,),
            shown=(point,),
        )
        yield Question(
            "box",
            (
                f"Give the bounding box of the {thing.name}.",
                f"Draw a box around the {thing.name}.",
                f"Which box holds the {thing.name}?",
            ),
            REGION_MARK,
            (thing.name,),
            shown=(scene.box_of(thing.mask),),
        )
        yield Question(
            "what-at",
            (f"What is at {REGION_MARK}?", f"Which object is at {REGION_MARK}?", f"Name the object at {REGION_MARK}."),
            thing.name,
            pointed=(point,),
        )


def counts(scene: Scene) -> Iterator[Question]:
    """How many there are of a kind, of a colour and kind, and in all; only where everything can be seen."""
    if len(scene.clear) != len(scene.things) or not scene.things:
        return
    kinds = Counter(thing.entry.kind for thing in scene.things)
    for kind, (plural, confusable) in COUNTED.items():
        if not confusable.isdisjoint(kinds):
            continue
        yield _count(plural, kinds[kind], ("kind", kind))
        of_kind = [thing.entry.colour for thing in scene.things if thing.entry.kind == kind]
        if of_kind and None not in of_kind:
            for colour in sorted({thing.entry.colour for thing in scene.things if thing.entry.colour}):
                yield _count(f"{colour} {plural}", of_kind.count(colour), ("kind", kind, colour))
    if scene.gripper is None:
        yield _count("objects", len(scene.things), ("all",))
        colours = [thing.entry.colour for thing in scene.things]
        if None not in colours:
            for colour, number in Counter(map(str, colours)).items():
                yield _count(f"{colour} objects", number, ("colour", colour))


def _count(plural: str, number: int, about: tuple[str, ...]) -> Question:
    return Question(
        "count",
        (
            f"How many {plural} are there on the table?",
            f"How many {plural} can you see on the table?",
            f"Count the {plural} on the table.",
            f"What is the number of {plural} on the table?",
        ),
        str(number),
        about,
    )


def affordances(scene: Scene) -> Iterator[Question]:
    """Where to take a thing, whether a gripper closes around it, and which thing serves a purpose."""
    for thing in scene.named:
        where = thing.grip_point(scene.camera)
        around = thing.entry.grip == "around"
        if where is not None and (not around or thing.width < 0.09):
            shown = scene.seen_at(where, thing.mask)
            if shown is not None:
                part = {"handle": " by its handle", "rim": " by the near part of its rim"}.get(
                    str(thing.entry.grip), " around its middle"
                )
                yield Question(
                    "grasp",
                    (
                        f"Where should a gripper take the {thing.name}{part}?",
                        f"Point to where you would grasp the {thing.name}{part}.",
                        f"A robot hand takes the {thing.name}{part}. Where?",
                    ),
                    REGION_MARK,
                    (thing.name,),
                    shown=(shown,),
                )
        if thing.entry.grip is not None:
            for opening in OPENINGS:
                if abs(opening - thing.width) > FIT_MARGIN:
                    wide = f"{opening * 100:.0f} cm"
                    yield Question(
                        "fits",
                        (
                            f"Can a gripper that opens {wide} close around the whole {thing.name} from above?",
                            f"Does the {thing.name} fit between gripper fingers that are {wide} apart?",
                            f"Is the {thing.name} narrower than {wide}?",
                        ),
                        "yes" if thing.width < opening else "no",
                        (thing.name, opening),
                    )
    for trait, purposes in (
        ("container", ("could you put the other things into", "can hold other things inside")),
        ("handle", ("has a handle", "can be held by a handle")),
    ):
        values = [getattr(thing.entry, trait) for thing in scene.things if thing.mask.any()]
        having = [thing for thing in scene.things if thing.mask.any() and getattr(thing.entry, trait)]
        if None not in values and len(having) == 1 and having[0] in scene.named and len(values) > 1:
            yield Question(
                "purpose",
                tuple(f"Which object {purpose}?" for purpose in purposes),
                having[0].name,
                (trait,),
            )


def free_space(scene: Scene) -> Iterator[Question]:
    """The emptiest spot of the table."""
    if scene.table is None or (spot := widest_spot(scene.table)) is None:
        return
    yield Question(
        "free-space",
        (
            "Point to the emptiest spot on the table.",
            "Where in the picture is the most room on the table to put something down?",
            "Point to the middle of the largest free part of the table.",
        ),
        REGION_MARK,
        shown=(scene.point_at(*spot),),
    )
