"""A trajectory cut into sub-actions: at gripper events, contacts and minima of the hand's speed.

Needs the hand's place; with the gripper's opening there are grasps and releases, with contacts there are things.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.coupled.trace import Trace

Kind = Literal["approach", "grasp", "carry", "release", "retreat", "work", "stay"]

CLOSED, OPENED = 0.4, 0.6
"""Parts of the gripper's own range between which it is neither."""
LEAST_RANGE = 0.1
"""A gripper whose opening varies less has no events."""
NEAR_START = 12
"""Steps before the fingers move among which the hand's slowest one begins a grasp."""
GAP = 0.25
"""Contacts that are less apart are one, seconds."""
LEAST_STEPS = 3
"""Shorter sub-actions are part of what comes before."""
STILL = 0.1
"""Of its usual speed: slower, the hand stands."""
REACH = 0.07
"""A thing whose middle is this near to the gripper is what it went to, metres."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One sub-action.

    Attributes:
        kind: what the hand does; "work" is to move a thing by contact, without holding it.
        start, stop: the first step and the one after the last.
        thing: number of the thing that it is about, or -1.
        goal: number of the thing that a carried one is brought to, or -1.
    """

    kind: Kind
    start: int
    stop: int
    thing: int = -1
    goal: int = -1


def phases(trace: Trace) -> tuple[Phase, ...]:
    """The sub-actions of an episode in order, without a gap; none where the hand's place is not known."""
    if trace.place is None or len(trace.place) < 2:
        return ()
    steps = len(trace.place)
    speed = hand_speed(trace.place)
    cuts: list[tuple[int, Kind, int]] = [(0, "approach", -1), *_events(trace, speed)]
    rest = _rest(speed)
    found: list[Phase] = []
    for (start, kind, thing), stop in zip(cuts, [*(c[0] for c in cuts[1:]), steps], strict=True):
        if stop - start >= LEAST_STEPS or (not found and stop > start):
            found.append(Phase(kind, found[-1].stop if found else start, stop, thing))
        elif found:
            found[-1] = replace(found[-1], stop=max(stop, found[-1].stop))
    last = found[-1]
    if last.start < rest < steps and last.kind != "grasp":
        found[-1:] = [replace(last, stop=rest), Phase("stay", rest, steps)]
    return tuple(_named(trace, found))


def hand_speed(place: NDArray[np.floating]) -> NDArray[np.float64]:
    """Metres a step, smoothed over three steps. [steps]"""
    moved = np.linalg.norm(np.diff(np.asarray(place, float), axis=0, prepend=place[:1]), axis=1)
    return np.convolve(np.pad(moved, 1, mode="edge"), np.ones(3) / 3, mode="valid")


def closings(opening: NDArray[np.floating]) -> list[tuple[int, int]]:
    """From which step to which the gripper is closed, counted from where the fingers begin to move."""
    low, high = np.quantile(opening, [0.02, 0.98])
    if high - low < LEAST_RANGE:
        return []
    part = (opening - low) / (high - low)
    found, start = [], -1
    for step, value in enumerate(part.tolist()):
        if start < 0 and value < CLOSED:
            start = step
        elif start >= 0 and value > OPENED:
            found.append((_onset(part, start), _onset(-part, step)))
            start = -1
    if start >= 0:
        found.append((_onset(part, start), len(part)))
    # One that is closed from the beginning has not closed.
    return [(start, stop) for start, stop in found if start > 0]


def _onset(part: NDArray[np.floating], step: int) -> int:
    """Where the fall that passes `step` began."""
    while step > 0 and part[step - 1] > part[step] + 1e-3:
        step -= 1
    return step


def _settled(opening: NDArray[np.floating], start: int, stop: int) -> int:
    """The first step from `start` on from which the fingers stay where they are at the end, but for a tenth."""
    left = np.abs(opening[start:stop] - opening[stop - 1])
    moving = np.nonzero(left > 0.1 * max(float(left.max()), 1e-6))[0]
    return min(start + (int(moving[-1]) + 1 if len(moving) else 1), stop)


def _events(trace: Trace, speed: NDArray[np.float64]) -> Iterator[tuple[int, Kind, int]]:
    """(step, kind, thing) of whatever begins after the first approach."""
    grasps = [] if trace.opening is None else _grasps(trace, closings(trace.opening))
    if not grasps:
        yield from _contacts(trace)
        return
    assert trace.opening is not None and trace.place is not None
    steps = len(trace.opening)
    free = 0
    for start, stop, thing in grasps:
        near = max(free + 1, start - NEAR_START)
        begin = near + int(speed[near : start + 1].argmin()) if start > near else start
        if free:
            # After a release the hand goes away first; from where it is farthest, it goes to the next thing.
            way = np.linalg.norm(trace.place[free:begin] - trace.place[free], axis=1)
            turn = free + (int(way.argmax()) if len(way) else 0)
            if turn > free:
                yield turn, "approach", thing
        yield begin, "grasp", thing
        taken = _settled(trace.opening, start, min(stop, start + 40))
        if trace.held is not None:
            taken = max(taken, start + 1 + int((trace.held[start:stop] == thing).argmax()))
        yield taken, "carry", thing
        if stop < steps:
            yield stop, "release", thing
            free = min(_settled(trace.opening, stop, min(stop + 25, steps)), steps)
            yield free, "retreat", thing


def _grasps(trace: Trace, closed: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Those closings in which something is held; all, where it is not known what is held."""
    if trace.held is None:
        return [(start, stop, -1) for start, stop in closed]
    found = []
    for start, stop in closed:
        held = trace.held[start:stop]
        if (held >= 0).mean() > 0.2:
            found.append((start, stop, int(np.bincount(held[held >= 0]).argmax())))
    return found


def _contacts(trace: Trace) -> Iterator[tuple[int, Kind, int]]:
    """Without a grasp: where the hand begins to work on a thing that it touches, and where it leaves it."""
    if trace.touched is None:
        return
    spans: list[list[int]] = []
    for step in np.nonzero(trace.touched >= 0)[0].tolist():
        if spans and step - spans[-1][1] <= max(GAP * trace.rate, LEAST_STEPS):
            spans[-1][1] = step
        else:
            spans.append([step, step])
    spans = [span for span in spans if span[1] - span[0] >= 2]
    for number, (first, last) in enumerate(spans):
        touched = trace.touched[first : last + 1]
        thing = int(np.bincount(touched[touched >= 0]).argmax())
        yield first, "work", thing
        if last + 1 < len(trace.touched):
            following = number + 1 < len(spans)
            yield last + 1, "approach" if following else "retreat", thing


def _rest(speed: NDArray[np.float64]) -> int:
    """The step from which the hand stands until the end; the number of steps where it does not."""
    usual = float(np.quantile(speed, 0.75))
    moving = np.nonzero(speed > STILL * usual)[0]
    rest = int(moving[-1]) + 1 if len(moving) else 0
    return rest if len(speed) - rest >= 3 else len(speed)


def _named(trace: Trace, found: list[Phase]) -> Iterator[Phase]:
    """The same with the things that they are about."""
    for number, phase in enumerate(found):
        following = found[number + 1] if number + 1 < len(found) else None
        if phase.kind == "approach":
            thing = following.thing if following and following.kind in ("grasp", "work") else -1
            yield replace(phase, thing=thing if thing >= 0 else nearest(trace, phase.stop - 1))
        elif phase.kind == "carry":
            yield replace(phase, goal=nearest(trace, phase.stop - 1, but=phase.thing))
        else:
            yield phase


def nearest(trace: Trace, step: int, but: int = -1) -> int:
    """The thing within `REACH` of the hand at a step; -1 for none."""
    if trace.things is None or trace.place is None or not len(trace.things):
        return -1
    look = max(0, int(np.searchsorted(trace.looks, step, side="right")) - 1)
    place = trace.place[step]
    # Of a large thing, what counts is how far its box is.
    off = np.maximum(np.maximum(trace.things.low[look] - place, place - trace.things.high[look]), 0)
    away = np.linalg.norm(off, axis=1)
    if but >= 0:
        away[but] = np.inf
    best = int(away.argmin())
    return best if away[best] <= REACH else -1
