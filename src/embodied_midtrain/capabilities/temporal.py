"""Temporal: several pictures of one episode. Their order, what happened between them, when, and by what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.coupled.moment import Asked, Moment
from embodied_midtrain.coupled.planning import between
from embodied_midtrain.coupled.spatial import WAYS, main_way
from embodied_midtrain.coupled.words import said

KINDS = ("first-of-two", "order", "grasped-in", "released-in", "moved-in", "moved", "cause", "motion", "happened")
ORDINALS = ("first", "second", "third", "fourth")
APART = 0.05
"""Two pictures differ where the hand or a thing is this much elsewhere, metres."""
MOVED, STILL = 0.03, 0.005
"""Metres from and up to which a thing has moved, and has not."""
TRIES = 4
"""Later looks that the present one is paired with."""
NONE = "none of them"


@dataclass(frozen=True)
class Several(Asked):
    """A question about pictures of several looks.

    Attributes:
        looks: of each of `views`.
    """

    looks: tuple[int, ...] = ()


def temporal(moment: Moment) -> Iterator[Several]:
    """Questions of `KINDS` that begin with the present look."""
    trace, look, rng = moment.trace, moment.look, moment.rng
    later = np.arange(look + 1, len(trace.looks))
    if not len(later):
        moment.leave("no later picture", KINDS)
        return
    if trace.place is None:
        moment.leave("place of the gripper not known", KINDS)
        return
    for other in rng.permutation(later)[:TRIES].tolist():
        end = Moment(trace, other, moment.phases, rng)
        yield from _first(moment, other)
        yield from _moved(moment, other)
        yield from _motion(moment, end)
        yield from _happened(moment, end)
    for _ in range(TRIES):
        if len(later) >= 2:
            yield from _order(moment, (look, *sorted(rng.choice(later, 2, replace=False).tolist())))
        if len(later) >= 3:
            yield from _events(moment, (look, *sorted(rng.choice(later, 3, replace=False).tolist())))


def asked(
    moment: Moment,
    kind: str,
    phrasings: tuple[str, ...],
    answer: str,
    looks: tuple[int, ...],
    *about: str | float,
    subject: str = "",
) -> Several:
    """About the main camera's pictures of some looks."""
    views = (moment.main.name,) * len(looks)
    return Several(kind, phrasings, answer, (kind, *about), subject=subject, views=views, looks=looks)


def shifts(moment: Moment, a: int, b: int) -> NDArray[np.float64]:
    """How far each thing's middle is from one look to another, metres. [things]"""
    assert moment.trace.things is not None
    centres = moment.trace.things.centres
    return np.linalg.norm(np.asarray(centres[b], float) - centres[a], axis=1)


def differ(moment: Moment, a: int, b: int) -> bool:
    """Whether two looks can be told apart."""
    trace = moment.trace
    assert trace.place is not None
    hand = np.linalg.norm(trace.place[trace.looks[a]] - trace.place[trace.looks[b]])
    return bool(hand >= APART or (trace.things is not None and (shifts(moment, a, b) >= APART).any()))


def _first(moment: Moment, other: int) -> Iterator[Several]:
    if not differ(moment, moment.look, other):
        moment.leave("two pictures hardly differ", ("first-of-two",))
        return
    order = moment.trace.instruction
    looks = (moment.look, other) if moment.rng.integers(2) else (other, moment.look)
    yield asked(
        moment,
        "first-of-two",
        (
            f"The robot carries out: {order}. Which of the two pictures was taken earlier, the first or the second?",
            f"Task: {order}. Which picture comes first in time: the first or the second?",
            f"Two moments while the robot is to {order}. Which is the earlier one, the first or the second?",
        ),
        "first" if looks[0] < looks[1] else "second",
        looks,
    )


def _order(moment: Moment, looks: tuple[int, ...]) -> Iterator[Several]:
    if not all(differ(moment, a, b) for n, a in enumerate(looks) for b in looks[n + 1 :]):
        moment.leave("two pictures hardly differ", ("order",))
        return
    shown = tuple(looks[n] for n in moment.rng.permutation(len(looks)))
    order = moment.trace.instruction
    yield asked(
        moment,
        "order",
        (
            f"The robot carries out: {order}. Put the three pictures in the order of time, by their numbers.",
            f"Task: {order}. In which order were these three pictures taken? Give their numbers.",
        ),
        ", ".join(str(shown.index(look) + 1) for look in sorted(looks)),
        shown,
    )


def _events(moment: Moment, looks: tuple[int, ...]) -> Iterator[Several]:
    """The first picture of a series in which something is so that was not so before."""
    trace = moment.trace
    if trace.held is None:
        moment.leave("what is held not known", ("grasped-in", "released-in"))
    else:
        held = trace.held[trace.looks[list(looks)]] >= 0
        for kind, states, words in (
            ("grasped-in", held, "does the gripper hold something for the first time"),
            ("released-in", ~held, "is the gripper empty again for the first time"),
        ):
            yield from _since(moment, kind, states.tolist(), looks, words, "")
    if trace.things is None:
        moment.leave("positions of things not known", ("moved-in",))
        return
    far = np.stack([shifts(moment, looks[0], look) for look in looks])
    for thing in range(len(trace.things)):
        near_tie = ((far[:, thing] > STILL) & (far[:, thing] < MOVED)).any()
        if near_tie or not trace.things.unique(thing) or thing not in moment.main.clear:
            continue
        name = moment.called(thing)
        words = f"is the {name} elsewhere than in the first, for the first time"
        yield from _since(moment, "moved-in", (far[:, thing] >= MOVED).tolist(), looks, words, name)


def _since(
    moment: Moment, kind: str, states: list[bool], looks: tuple[int, ...], words: str, subject: str
) -> Iterator[Several]:
    # Once true it has to stay true: else there would be two first times.
    if states[0] or not states[-1] or sorted(states) != states:
        return
    yield asked(
        moment,
        kind,
        (
            f"These four pictures are in the order of time. In which of them {words}: the second, the third or the "
            "fourth?",
            f"Four pictures, one after the other: in which one {words} (second, third or fourth)?",
        ),
        ORDINALS[states.index(True)],
        looks,
        subject,
        subject=subject,
    )


def _moved(moment: Moment, other: int) -> Iterator[Several]:
    """Which thing is elsewhere afterwards, and how that came."""
    trace = moment.trace
    if trace.things is None or trace.held is None or trace.touched is None:
        moment.leave("positions of things not known", ("moved", "cause"))
        return
    far = shifts(moment, moment.look, other)
    moved = np.nonzero(far > STILL)[0].tolist()
    if len(moved) > 1 or (moved and (far[moved[0]] < MOVED or not trace.things.unique(moved[0]))):
        moment.leave("not one thing that has clearly moved", ("moved", "cause"))
        return
    looks = (moment.look, other)
    named = sorted({thing.name for thing in trace.things.named})
    yield asked(
        moment,
        "moved",
        (
            f"Which of these has moved from the first picture to the second: {', '.join(named)}, or {NONE}?",
            f"Two pictures, the second taken later. What is no longer where it was ({', '.join(named)}, {NONE})?",
        ),
        moment.called(moved[0]) if moved else NONE,
        looks,
        moved[0] if moved else -1,
        subject=", ".join(named),
    )
    if not moved:
        return
    start, stop = trace.looks[list(looks)]
    held = bool((trace.held[start : stop + 1] == moved[0]).any())
    if not held and not (trace.touched[start : stop + 1] == moved[0]).any():
        moment.leave("it moved without being touched", ("cause",))
        return
    name = moment.called(moved[0])
    yield asked(
        moment,
        "cause",
        (
            f"The {name} is elsewhere in the second picture. Was it held between the fingers at any time on its way, "
            "or only touched? Answer held or touched.",
            f"How did the {name} get from where the first picture shows it to where the second does: held between the "
            "fingers at some time, or only touched? Answer held or touched.",
        ),
        "held" if held else "touched",
        looks,
        moved[0],
        subject=name,
    )


def _motion(moment: Moment, end: Moment) -> Iterator[Several]:
    if moment.trace.forward is None or moment.place is None or end.place is None:
        moment.leave("the way the robot faces not known", ("motion",))
        return
    way = main_way(end.place - moment.place, moment.trace.forward)
    if way is None or np.linalg.norm(end.place - moment.place) < APART:
        moment.leave("no main direction", ("motion",))
        return
    yield asked(
        moment,
        "motion",
        (
            f"Which way did the gripper mainly go from the first picture to the second, as the robot sees it: "
            f"{', '.join(WAYS[:-1])} or {WAYS[-1]}?",
            f"Main direction of the hand from the first picture to the second, in the robot's own terms "
            f"({', '.join(WAYS)})?",
        ),
        way,
        (moment.look, end.look),
    )


def _happened(moment: Moment, end: Moment) -> Iterator[Several]:
    if moment.phase is None or end.phase is None:
        moment.leave("no sub-actions found", ("happened",))
        return
    if between(moment) or between(end):
        moment.leave("between two sub-actions", ("happened",))
        return
    if moment.phase == end.phase:
        moment.leave("no sub-action ended", ("happened",))
        return
    order = moment.trace.instruction
    lines = [said(moment.trace, phase) for phase in moment.phases[moment.phase : end.phase]]
    yield asked(
        moment,
        "happened",
        (
            f"The robot is told: {order}. Which sub-actions did it finish between the first picture and the second?",
            f"Task: {order}. What was completed from the first picture to the second, in order?",
        ),
        "; ".join(lines),
        (moment.look, end.look),
        moment.phase,
        end.phase,
        subject=order,
    )
