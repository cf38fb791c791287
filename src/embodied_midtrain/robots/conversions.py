"""Which actions can become which: whatever `convert.convert_actions` would have to guess is an error here."""

from __future__ import annotations

import math
from dataclasses import replace

from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.robots.rotations import rotation_dimensions

HAND = "end effector"
STILL = ("base", "world", "joint")
"""Frames in which changes may be added up."""
AXES = ("x", "y", "z")


def conversion_stride(from_spec: ActionSpec, to_spec: ActionSpec) -> int:
    """How many actions become one.

    Raises:
        ValueError: where the rates do not divide.
    """
    if from_spec.rate == to_spec.rate:
        return 1
    if from_spec.rate <= 0 or to_spec.rate <= 0:
        raise ValueError(f"the rate is not known on one side ({from_spec.rate:g} to {to_spec.rate:g} a second)")
    stride = round(from_spec.rate / to_spec.rate)
    if stride < 1 or abs(stride * to_spec.rate - from_spec.rate) > 1e-6 * from_spec.rate:
        raise ValueError(
            f"{from_spec.rate:g} actions a second cannot become {to_spec.rate:g}: the new rate must divide the old one"
        )
    return stride


def check_conversion(from_spec: ActionSpec, to_spec: ActionSpec, state: ActionSpec | None = None) -> int:
    """Raise where `convert_actions` between these specs is not defined; else how many actions become one.

    Raises:
        ValueError: naming what is missing or does not fit.
    """
    for spec, side in ((from_spec, "given"), (to_spec, "wanted")):
        if spec.kind == "unknown":
            raise ValueError(f"the {side} spec does not say whether actions are changes or targets (kind: unknown)")
        if spec.frame not in (*STILL, HAND):
            raise ValueError(
                f"the {side} spec's frame {spec.frame!r} is not known; known are: {', '.join((*STILL, HAND))}"
            )
        if spec.frame == HAND and spec.kind == "absolute":
            raise ValueError(f"the {side} spec: a target in the end effector's own frame has no meaning")
    stride = conversion_stride(from_spec, to_spec)
    _check_dimensions(from_spec, to_spec)
    _check_frames(from_spec, to_spec)
    for spec in same_grippers(from_spec, to_spec):
        gripper_line(spec)
    turning = bool(rotation_dimensions(from_spec))
    entered = (from_spec.frame == HAND) != (to_spec.frame == HAND)
    composed = stride > 1 and from_spec.kind == "delta"
    if HAND in (from_spec.frame, to_spec.frame) and (entered or composed):
        for spec in (from_spec, to_spec):
            if any(name in spec.names for name in AXES) and not set(AXES) <= set(spec.names):
                raise ValueError(f"to turn a position, x, y and z are needed; there are: {', '.join(spec.names)}")
        if composed and not entered and not turning:
            raise ValueError("changes in the end effector's frame cannot be composed without their rotation")
    reshaped = from_spec.rotation != to_spec.rotation or from_spec.kind != to_spec.kind or entered or composed
    specs = [from_spec, to_spec]
    if needs_state(from_spec, to_spec):
        if state is None:
            raise ValueError(
                f"{from_spec.kind} actions ({from_spec.frame}) become {to_spec.kind} ones ({to_spec.frame}) only with "
                "the state at each action, and none was given"
            )
        _check_state(state, from_spec, to_spec, entered=entered)
        specs.append(state)
    angles = 3 in (len(rotation_dimensions(from_spec)), len(rotation_dimensions(to_spec)))
    if len({bool(spec.scale) for spec in specs}) > 1 or (angles and reshaped and not from_spec.scale):
        sides = ("given", "wanted", "state's")[: len(specs)]
        missing = [f"the {side} spec" for spec, side in zip(specs, sides, strict=True) if not spec.scale]
        raise ValueError(f"{' and '.join(missing)} does not say the units: set 'scale' (metres or radians a unit)")
    return stride


def needs_state(from_spec: ActionSpec, to_spec: ActionSpec) -> bool:
    return from_spec.kind != to_spec.kind or (from_spec.frame == HAND) != (to_spec.frame == HAND)


def _check_dimensions(from_spec: ActionSpec, to_spec: ActionSpec) -> None:
    if (from_spec.gripper is None) != (to_spec.gripper is None):
        raise ValueError(f"the {'given' if from_spec.gripper is None else 'wanted'} spec has no gripper, the other has")
    if bool(rotation_dimensions(from_spec)) != bool(rotation_dimensions(to_spec)):
        raise ValueError(f"the rotation form {from_spec.rotation!r} cannot become {to_spec.rotation!r}")
    given, wanted = set(plain_names(from_spec)), set(plain_names(to_spec))
    if missing := sorted(wanted - given):
        raise ValueError(f"the given actions have no {', '.join(missing)}; they have: {', '.join(from_spec.names)}")
    if lost := sorted(given - wanted):
        raise ValueError(f"{', '.join(lost)} would be lost; the wanted spec has: {', '.join(to_spec.names)}")


def _check_frames(from_spec: ActionSpec, to_spec: ActionSpec) -> None:
    frames = {from_spec.frame, to_spec.frame}
    if len(frames) == 1:
        return
    if "joint" in frames:
        raise ValueError(
            "joints become poses, or the other way round, only by the robot's kinematics, which are not here"
        )
    if frames == {"base", "world"}:
        raise ValueError(
            "'base' becomes 'world', or the other way round, only with the place of the robot's base in the world, "
            "which is not here; where they coincide, name both the same"
        )


def _check_state(state: ActionSpec, from_spec: ActionSpec, to_spec: ActionSpec, *, entered: bool) -> None:
    if state.kind != "absolute":
        raise ValueError(f"the state's spec must be absolute, not {state.kind}")
    still = {spec.frame for spec in (from_spec, to_spec)} - {HAND}
    if not still <= {state.frame}:
        raise ValueError(
            f"the state is given in the frame {state.frame!r}, the actions in {', '.join(sorted(still))!r}"
        )
    if entered and not rotation_dimensions(state):
        raise ValueError("the state has no rotation, which the end effector's frame needs")
    if from_spec.kind == to_spec.kind:
        return
    if missing := sorted(set(plain_names(from_spec)) - set(plain_names(state))):
        raise ValueError(f"the state has no {', '.join(missing)}; it has: {', '.join(state.names)}")
    if rotation_dimensions(from_spec) and not rotation_dimensions(state):
        raise ValueError("the state has no rotation, and the actions do")


def plain_names(spec: ActionSpec) -> tuple[str, ...]:
    """Names of the dimensions that are neither rotation nor gripper."""
    turning = rotation_dimensions(spec)
    return tuple(name for n, name in enumerate(spec.names) if n not in turning and n != spec.gripper)


def gripper_line(spec: ActionSpec) -> tuple[float, float]:
    """Of the gripper: its number when it is open, and what is added to close it."""
    if spec.gripper is None:
        return 0.0, 0.0
    low, high = spec.low[spec.gripper], spec.high[spec.gripper]
    if not (math.isfinite(low) and math.isfinite(high)) or low >= high or spec.gripper_closed not in (1, -1):
        raise ValueError(
            f"the gripper's range is not known ({spec.names[spec.gripper]}: {low:g} to {high:g}, closed at "
            f"{spec.gripper_closed:+d}); set 'low', 'high' and 'gripper_closed'"
        )
    return (low, high - low) if spec.gripper_closed > 0 else (high, low - high)


def same_grippers(from_spec: ActionSpec, to_spec: ActionSpec) -> tuple[ActionSpec, ActionSpec]:
    """The two specs; where both mean the same by the gripper's number, with a range, so that it passes unchanged."""

    def convention(spec: ActionSpec) -> tuple[float, float, int] | None:
        at = spec.gripper
        return None if at is None else (spec.low[at], spec.high[at], spec.gripper_closed)

    def ranged(spec: ActionSpec) -> ActionSpec:
        low, high = (
            tuple(end if n == spec.gripper else bound for n, bound in enumerate(bounds))
            for end, bounds in ((0.0, spec.low), (1.0, spec.high))
        )
        return replace(spec, low=low, high=high, gripper_closed=1)

    if convention(from_spec) is None or convention(from_spec) != convention(to_spec):
        return from_spec, to_spec
    return ranged(from_spec), ranged(to_spec)
