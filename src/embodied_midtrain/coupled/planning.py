"""Task-oriented, what is being done and what comes next: from the trajectory's sub-actions."""

from __future__ import annotations

from collections.abc import Iterator

from embodied_midtrain.coupled.moment import Asked, Moment
from embodied_midtrain.coupled.words import DOING, said

KINDS = ("plan", "phase", "next")
EDGE = 2
"""So near to the beginning of a sub-action, in steps, neither it nor the one before is asked for."""


def planning(moment: Moment) -> Iterator[Asked]:
    """Questions of `KINDS`."""
    trace, number = moment.trace, moment.phase
    if number is None:
        moment.leave("no sub-actions found", KINDS)
        return
    order, views = trace.instruction, (moment.main.name,)
    phases = moment.phases
    lines = [said(trace, phase) for phase in phases[number:]]
    if all(phase.kind == "approach" and phase.thing < 0 for phase in phases[number:]):
        # Nothing that is known is gone to, and no gripper moves: the answer would be the same whatever was done.
        moment.leave("no gripper event and no known thing ahead", ("plan",))
    else:
        yield Asked(
            "plan",
            (
                f"The robot is told: {order}. List the sub-actions that remain, in order.",
                f"Task: {order}. What remains to be done from here, step by step?",
                f"To {order}, which sub-actions must the robot still carry out, the one it is in included?",
            ),
            "; ".join(f"{n + 1}. {line}" for n, line in enumerate(lines)),
            ("plan", number),
            subject=order,
            views=views,
        )
    if between(moment):
        moment.leave("between two sub-actions", ("phase", "next"))
        return
    kinds = [kind for kind in DOING if any(phase.kind == kind for phase in phases)]
    choice = ", ".join(DOING[kind] for kind in kinds)
    if len(kinds) < 2:
        moment.leave("the episode is of one phase", ("phase",))
    else:
        yield Asked(
            "phase",
            (
                f"The robot is told: {order}. What is it doing now: {choice}?",
                f"Task: {order}. Which phase is the robot in ({choice})?",
                f"While the robot is to {order}, which of these fits the picture: {choice}?",
            ),
            DOING[phases[number].kind],
            ("phase", number),
            subject=order,
            views=views,
        )
    if number + 1 == len(phases):
        moment.leave("no next sub-action", ("next",))
        return
    yield Asked(
        "next",
        (
            f"The robot is told: {order}. When it has done what it is doing, what comes next?",
            f"Task: {order}. Name the sub-action after the present one.",
            f"To {order}, what does the robot have to do next?",
        ),
        lines[1],
        ("next", number + 1),
        subject=order,
        views=views,
    )


def between(moment: Moment) -> bool:
    """Whether the step is too near to where one sub-action ends and another begins to say which it is in."""
    assert moment.phase is not None
    phase = moment.phases[moment.phase]
    begins = moment.phase > 0 and moment.step - phase.start < EDGE
    return begins or phase.stop - moment.step <= EDGE < phase.stop
