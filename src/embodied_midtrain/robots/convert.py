"""Actions of one convention in another: order, units, gripper, rotation form, frame, change or target, rate.

Nothing is guessed: what a conversion needs and does not have (a state, a scale, a range) is an error that names it.

What a change means: in a frame that stands still ("base", "world") a position's change is added and a rotation's is
applied from the left; in the "end effector" frame both are given in the axes that the gripper has when the action
starts. A target is the state plus the change. The gripper's number is a command in either kind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.robots.conversions import (
    AXES,
    HAND,
    check_conversion,
    gripper_line,
    needs_state,
    plain_names,
    same_grippers,
)
from embodied_midtrain.robots.rotations import read_rotation, rotation_dimensions, write_rotation


@dataclass(frozen=True, slots=True)
class States:
    """Where the robot was when each action started.

    Attributes:
        spec: what the numbers mean: `kind` "absolute"; names, rotation form and scale as in an action.
        values: [time, spec.width].
    """

    spec: ActionSpec
    values: NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Motion:
    """An action series taken apart, in metres and radians (or in units that nobody said, the same on both sides).

    Attributes:
        plain: [time] by name: positions, joints, whatever is neither rotation nor gripper.
        rotation: scipy's Rotation of [time] turns, or None.
        closed: [time], how far the gripper is told to close, 0 to 1; or None.
    """

    plain: dict[str, NDArray[np.float64]]
    rotation: Any
    closed: NDArray[np.float64] | None


def convert_actions(
    actions: NDArray[Any], from_spec: ActionSpec, to_spec: ActionSpec, state: States | None = None
) -> NDArray[np.float32]:
    """One episode's actions [time, from width] in the convention of `to_spec`: [fewer or as many, to width].

    A lower rate, which must divide the given one, makes one action of several: changes are composed, of targets and of
    the gripper the last is taken, and the last action may stand for fewer. Bounds are no part of what numbers mean:
    only the gripper's are used, and nothing is cut off.

    Args:
        state: wanted where changes become targets or the other way round, and where the end effector's frame is
            entered or left.

    Raises:
        ValueError: where the conversion is not defined; the message names what is missing.
    """
    actions = np.asarray(actions)
    if actions.ndim != 2 or actions.shape[1] != from_spec.width:
        raise ValueError(f"actions of shape {actions.shape}, wanted [time, {from_spec.width}] by the spec they are in")
    if from_spec == to_spec:
        return actions.astype(np.float32)
    if not np.isfinite(actions).all():
        raise ValueError("the actions hold values that are no numbers")
    stride = check_conversion(from_spec, to_spec, state.spec if state is not None else None)
    here = None
    if state is not None and needs_state(from_spec, to_spec):
        if len(state.values) != len(actions):
            raise ValueError(f"{len(state.values)} states for {len(actions)} actions")
        if not np.isfinite(state.values).all():
            raise ValueError("the states hold values that are no numbers")
        here = _take_apart(np.asarray(state.values), replace(state.spec, gripper=None))
    from_spec, to_spec = same_grippers(from_spec, to_spec)
    motion = _take_apart(actions, from_spec)
    frame, absolute = from_spec.frame, from_spec.kind == "absolute"
    if frame == HAND and not (to_spec.frame == HAND and to_spec.kind == "delta"):
        motion, frame = _turn(motion, _given(here).rotation), "still"
    if not absolute and to_spec.kind == "absolute":
        motion, absolute = _add(_given(here), motion), True
    if stride > 1:
        motion = _every(motion, stride) if absolute else _compose(motion, stride, in_hand=frame == HAND)
        here = None if here is None else _pick(here, np.arange(0, len(actions), stride))
    if absolute and to_spec.kind == "delta":
        motion = _subtract(motion, _given(here))
    if to_spec.frame == HAND and frame != HAND:
        motion = _turn(motion, _given(here).rotation.inv())
    return _put_together(motion, to_spec)


def _take_apart(values: NDArray[Any], spec: ActionSpec) -> _Motion:
    numbers = np.asarray(values, np.float64)
    scaled = numbers * np.asarray(spec.scale or 1.0)
    turning = rotation_dimensions(spec)
    # A quaternion or a matrix has no unit.
    angles = (scaled if len(turning) == 3 else numbers)[:, list(turning)]
    closed = None
    if spec.gripper is not None:
        opened, way = gripper_line(spec)
        closed = (numbers[:, spec.gripper] - opened) / way
    plain = {name: scaled[:, spec.names.index(name)] for name in plain_names(spec)}
    return _Motion(plain, read_rotation(spec.rotation, angles) if turning else None, closed)


def _put_together(motion: _Motion, spec: ActionSpec) -> NDArray[np.float32]:
    turning = rotation_dimensions(spec)
    found = np.zeros((_length(motion), spec.width))
    scale = np.broadcast_to(np.asarray(spec.scale or 1.0), (spec.width,))
    for name, values in motion.plain.items():
        at = spec.names.index(name)
        found[:, at] = values / scale[at]
    if turning:
        units = scale[list(turning)] if len(turning) == 3 else 1.0
        found[:, list(turning)] = write_rotation(spec.rotation, motion.rotation) / units
    if spec.gripper is not None and motion.closed is not None:
        opened, way = gripper_line(spec)
        found[:, spec.gripper] = opened + way * motion.closed
    return found.astype(np.float32)


def _given(here: _Motion | None) -> _Motion:
    assert here is not None, "check_conversion asks for it"
    return here


def _position(motion: _Motion) -> NDArray[np.float64]:
    """[time, 3]"""
    return np.stack([motion.plain[name] for name in AXES], axis=1)


def _turned(motion: _Motion, rotation: Any) -> dict[str, NDArray[np.float64]]:
    if "x" not in motion.plain:
        return motion.plain
    return motion.plain | dict(zip(AXES, rotation.apply(_position(motion)).T, strict=True))


def _turn(motion: _Motion, rotation: Any) -> _Motion:
    """Changes in axes that are turned by `rotation`, in the axes that these are turned from."""
    inner = None if motion.rotation is None else rotation * motion.rotation * rotation.inv()
    return replace(motion, plain=_turned(motion, rotation), rotation=inner)


def _add(here: _Motion, change: _Motion) -> _Motion:
    plain = {name: here.plain[name] + values for name, values in change.plain.items()}
    return replace(change, plain=plain, rotation=None if change.rotation is None else change.rotation * here.rotation)


def _subtract(target: _Motion, here: _Motion) -> _Motion:
    plain = {name: values - here.plain[name] for name, values in target.plain.items()}
    turned = None if target.rotation is None else target.rotation * here.rotation.inv()
    return replace(target, plain=plain, rotation=turned)


def _pick(motion: _Motion, index: NDArray[np.int64]) -> _Motion:
    return _Motion(
        {name: values[index] for name, values in motion.plain.items()},
        None if motion.rotation is None else motion.rotation[index],
        None if motion.closed is None else motion.closed[index],
    )


def _length(motion: _Motion) -> int:
    return next(len(part) for part in (*motion.plain.values(), motion.rotation, motion.closed) if part is not None)


def _ends(length: int, stride: int) -> NDArray[np.int64]:
    return np.minimum(np.arange(0, length, stride) + stride, length) - 1


def _every(motion: _Motion, stride: int) -> _Motion:
    """The last of every `stride` targets."""
    return _pick(motion, _ends(_length(motion), stride))


def _compose(motion: _Motion, stride: int, *, in_hand: bool) -> _Motion:
    """Every `stride` changes, one after another, as one."""
    length = _length(motion)
    starts, last = np.arange(0, length, stride), _ends(length, stride)
    total = _pick(motion, starts)
    for step in range(1, stride):
        # An episode's last group may be shorter: it goes on with the groups that have this step.
        there = np.flatnonzero(starts + step < length)
        now = _pick(motion, starts[there] + step)
        so_far = _pick(total, there)
        moved = _turned(now, so_far.rotation) if in_hand else now.plain
        for name, values in moved.items():
            total.plain[name][there] += values
        if motion.rotation is not None:
            turned = so_far.rotation * now.rotation if in_hand else now.rotation * so_far.rotation
            total = replace(total, rotation=_put(total.rotation, there, turned))
    return replace(total, closed=None if motion.closed is None else motion.closed[last])


def _put(rotation: Any, index: NDArray[np.int64], values: Any) -> Any:
    """A copy with some turns replaced."""
    numbers = rotation.as_quat()
    numbers[index] = values.as_quat()
    return type(rotation).from_quat(numbers)
