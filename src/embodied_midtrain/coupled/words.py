"""How sub-actions are said."""

from __future__ import annotations

from embodied_midtrain.coupled.phases import Kind, Phase
from embodied_midtrain.coupled.trace import Trace

DOING: dict[Kind, str] = {
    "approach": "approaching",
    "grasp": "grasping",
    "carry": "carrying",
    "release": "releasing",
    "retreat": "retreating",
    "work": "moving something by contact",
    "stay": "holding still",
}
"""What the hand does, as one word or a few."""


def name_of(trace: Trace, thing: int) -> str | None:
    """What a thing is called, with its article; None where there is none."""
    if thing < 0 or trace.things is None:
        return None
    return f"the {trace.things.named[thing].name}"


def said(trace: Trace, phase: Phase) -> str:
    """A sub-action as a command."""
    name = name_of(trace, phase.thing)
    thing, goal = name or "the object", name_of(trace, phase.goal)
    match phase.kind:
        case "approach":
            return f"move the gripper to {name or 'the place to act'}"
        case "grasp":
            return f"close the gripper on {thing}"
        case "carry":
            return f"carry {thing} to {goal}" if goal else f"carry {thing}"
        case "release":
            return f"open the gripper to release {thing}"
        case "retreat":
            return "move the gripper away"
        case "work":
            return f"move {thing} by contact"
        case "stay":
            return "hold still"
