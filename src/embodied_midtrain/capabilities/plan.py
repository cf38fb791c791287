"""Plan & Reasoning: sub-goals, what has to come first, and what is done already."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from embodied_midtrain.coupled import planning
from embodied_midtrain.coupled.moment import Asked, Moment
from embodied_midtrain.coupled.planning import between
from embodied_midtrain.coupled.words import said

OWN = ("done", "before", "earlier")
KINDS = (*planning.KINDS, *OWN)
NOTHING_MISSING = "nothing"


def plan(moment: Moment) -> Iterator[Asked]:
    """Questions of `KINDS`."""
    yield from planning.planning(moment)
    now = moment.phase
    if now is None:
        moment.leave("no sub-actions found", OWN)
        return
    if between(moment):
        moment.leave("between two sub-actions", OWN)
        return
    trace, order, views = moment.trace, moment.trace.instruction, (moment.main.name,)
    lines = [said(trace, phase) for phase in moment.phases]
    once = [number for number, line in enumerate(lines) if lines.count(line) == 1]
    if len(once) < len(lines):
        moment.leave("a sub-action that occurs twice", OWN)
    for number in once:
        if number != now:
            yield Asked(
                "done",
                (
                    f"The robot is told: {order}. Has it already done this: {lines[number]}? Answer yes or no.",
                    f"Task: {order}. Is this sub-action behind the robot: {lines[number]}? Answer yes or no.",
                    f"While the robot is to {order}, is '{lines[number]}' finished? Answer yes or no.",
                ),
                "yes" if number < now else "no",
                ("done", number),
                subject=lines[number],
                views=views,
            )
        if number >= now and number > 0:
            missing = "; ".join(lines[now:number]) or NOTHING_MISSING
            yield Asked(
                "before",
                (
                    f"The robot is told: {order}. What still has to be done before it can do this: {lines[number]}? "
                    f"Say '{NOTHING_MISSING}' where all is ready.",
                    f"Task: {order}. Which sub-actions are still missing before '{lines[number]}' "
                    f"('{NOTHING_MISSING}' for none)?",
                ),
                missing,
                ("before", number),
                subject=lines[number],
                views=views,
            )
    for a, b in itertools.pairwise(once):
        first, second = ((a, b), (b, a))[int(moment.rng.integers(2))]
        yield Asked(
            "earlier",
            (
                f"The robot is told: {order}. Which comes first: '{lines[first]}' or '{lines[second]}'?",
                f"To {order}, which of these must be done earlier: '{lines[first]}' or '{lines[second]}'?",
            ),
            lines[a],
            ("earlier", a, b),
            subject=order,
            views=views,
        )
