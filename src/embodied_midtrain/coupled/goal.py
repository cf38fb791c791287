"""Scene-grounding, what there is: naming, finding and describing things, and the one that the instruction means."""

from __future__ import annotations

from collections.abc import Iterator

from embodied_midtrain.coupled.moment import Asked, Moment, Shot
from embodied_midtrain.coupled.phases import Phase
from embodied_midtrain.samples import REGION_MARK, Region
from embodied_midtrain.simulation.truth import ARM, FINGERS, FIRST, NOTHING
from embodied_midtrain.sources.registry.labelled import article

KINDS = ("what-at", "where", "box", "visible", "meant", "holding", "describe")
INSIDE = 0.02
"""What is this near to a point, part of the picture's height, shows the same as the point."""
TRIES = 4
"""Points at which nothing but the surroundings are looked for."""


def goal(moment: Moment) -> Iterator[Asked]:
    """Questions of `KINDS`."""
    if moment.trace.held is None:
        moment.leave("what is held not known", ("holding", "describe"))
    if moment.trace.things is None or moment.main.view.seen is None:
        moment.leave("masks of things not known", KINDS)
        return
    for shot in moment.shots:
        yield from _naming(moment, shot)
    yield from _visible(moment, moment.main)
    yield from _meant(moment, moment.main)
    yield from _state(moment, moment.main)


def _naming(moment: Moment, shot: Shot) -> Iterator[Asked]:
    assert moment.trace.things is not None
    kinds = ("what-at", "where", "box")
    moment.leave("a thing not clearly in view", kinds, len(moment.trace.things) - len(shot.clear))
    moment.leave("a name that two things have", kinds, len(shot.clear) - len(shot.named))
    for thing in shot.named:
        name = moment.called(thing)
        yield _what_at(shot, shot.points[thing], name, thing)
        yield Asked(
            "where",
            (f"Point to the {name}.", f"Where is the {name}?", f"Give a point on the {name}."),
            REGION_MARK,
            ("where", thing),
            shown=(shot.points[thing],),
            views=(shot.name,),
        )
        yield Asked(
            "box",
            (
                f"Give the bounding box of the {name}.",
                f"Draw a box around the {name}.",
                f"Which box holds the {name}?",
            ),
            REGION_MARK,
            ("box", thing),
            shown=(shot.boxes[thing],),
            views=(shot.name,),
        )
    height, width = shot.view.size
    reach = max(1, round(INSIDE * height))
    for row, column in moment.rng.integers(reach, (height - reach, width - reach), (TRIES, 2)).tolist():
        around = shot.seen[row - reach : row + reach + 1, column - reach : column + reach + 1]
        meaning = int(around[reach, reach])
        if meaning in _OTHERS and (around == meaning).all():
            yield _what_at(shot, shot.point(column + 0.5, row + 0.5), _OTHERS[meaning], -1 - meaning)


_OTHERS = {NOTHING: "none of the objects", ARM: "robot arm", FINGERS: "robot gripper"}


def _what_at(shot: Shot, at: Region, name: str, about: int) -> Asked:
    return Asked(
        "what-at",
        (
            f"What is at {REGION_MARK}? Say 'none of the objects' for the surroundings.",
            f"Which object is at {REGION_MARK}, if any ('none of the objects' else)?",
            f"Name the object at {REGION_MARK}, or say 'none of the objects'.",
        ),
        name,
        ("what-at", about),
        pointed=(at,),
        views=(shot.name,),
    )


def _visible(moment: Moment, main: Shot) -> Iterator[Asked]:
    """Whether the wrist's camera shows a thing: wholly hidden or clearly in view."""
    shot = moment.wrist or main
    assert moment.trace.things is not None
    for thing in range(len(moment.trace.things)):
        seen = bool(shot.pixels[FIRST + thing])
        if moment.trace.things.unique(thing) and seen == (thing in shot.clear):
            name = moment.called(thing)
            yield Asked(
                "visible",
                (
                    f"Does this picture show the {name}? Answer yes or no.",
                    f"Can you see the {name} here? Answer yes or no.",
                    f"Yes or no: is the {name} in view?",
                ),
                "yes" if seen else "no",
                ("visible", thing),
                subject=name,
                views=(shot.name,),
            )


def meant(phases: tuple[Phase, ...]) -> int:
    """The thing that the episode is about: the first that is taken or worked on, else the one that is gone to."""
    worked = [phase.thing for phase in phases if phase.kind in ("grasp", "work") and phase.thing >= 0]
    gone_to = [phase.thing for phase in phases if phase.kind == "approach" and phase.thing >= 0]
    return (worked or gone_to[-1:] or [-1])[0]


def _meant(moment: Moment, shot: Shot) -> Iterator[Asked]:
    thing = meant(moment.phases)
    if thing < 0:
        moment.leave("no thing that the instruction is carried out on", ("meant",))
    elif thing not in shot.clear:
        moment.leave("the thing that is meant is not clearly in view", ("meant",))
    else:
        order = moment.trace.instruction
        yield Asked(
            "meant",
            (
                f"The robot is told: {order}. Point to the thing that it has to go to first.",
                f"To {order}, which thing does the gripper act on first? Point to it.",
                f"Task: {order}. Where is the thing to begin with?",
            ),
            REGION_MARK,
            ("meant", thing),
            shown=(shot.points[thing],),
            views=(shot.name,),
        )


def _state(moment: Moment, shot: Shot) -> Iterator[Asked]:
    trace = moment.trace
    if trace.held is None or trace.opening is None:
        return
    held = int(trace.held[moment.step])
    yield Asked(
        "holding",
        (
            "Is the gripper holding something? Answer yes or no.",
            "Yes or no: does the robot hold an object between its fingers?",
            "Has the gripper got hold of anything? Answer yes or no.",
        ),
        "yes" if held >= 0 else "no",
        ("holding", held),
        views=(shot.name,),
    )
    if not shot.named:
        return
    names = [article(name) for name in sorted(moment.called(thing) for thing in shot.named)]
    things = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    does = f"holds the {moment.called(held)}" if held >= 0 else "holds nothing"
    yield Asked(
        "describe",
        (
            "Describe the scene: the objects in view, and what the gripper holds.",
            "What does the picture show, and is anything in the gripper?",
            "Say which objects are in view and what the robot holds.",
        ),
        f"The picture shows {things}. The gripper {does}.",
        ("describe", held, *shot.named),
        views=(shot.name,),
    )
