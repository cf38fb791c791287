"""Conversions: round trips through every form, plain numpy beside them, and what is refused by name."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.robots.convert import States, convert_actions
from embodied_midtrain.robots.known import KNOWN

FORMS = {
    "axis-angle": ("rx", "ry", "rz"),
    "euler xyz": ("roll", "pitch", "yaw"),
    "euler zyx": ("roll", "pitch", "yaw"),
    "euler ZYX": ("rz", "ry", "rx"),
    "quaternion wxyz": ("qw", "qx", "qy", "qz"),
    "quaternion xyzw": ("qx", "qy", "qz", "qw"),
    "6d columns": ("r11", "r21", "r31", "r12", "r22", "r32"),
    "6d rows": ("r11", "r12", "r13", "r21", "r22", "r23"),
}


def spec(form: str = "euler xyz", kind: Any = "delta", frame: str = "base", **more: Any) -> ActionSpec:
    names = ("x", "y", "z", *FORMS[form], "gripper")
    width = len(names)
    bounds = {"low": (-math.inf,) * (width - 1) + (0.0,), "high": (math.inf,) * (width - 1) + (1.0,)}
    made = ActionSpec(names, kind, frame, form, width - 1, -1, **bounds, rate=10.0, scale=(1.0,) * width)
    return replace(made, **more)


STATE = spec("quaternion wxyz", "absolute")


def states(length: int, seed: int, turn: float = 1.2) -> States:
    rng = np.random.default_rng(seed)
    rotvec = rng.uniform(-turn, turn, (length, 3))
    values = np.concatenate([rng.uniform(-1, 1, (length, 3)), quaternion(rotvec), np.zeros((length, 1))], axis=1)
    return States(STATE, values)


def moves(length: int, seed: int, turn: float = 0.5) -> NDArray[np.float32]:
    """Changes in the form of `spec("axis-angle")`."""
    rng = np.random.default_rng(seed + 1000)
    parts = [rng.uniform(-0.1, 0.1, (length, 3)), rng.uniform(-turn, turn, (length, 3)), rng.uniform(0, 1, (length, 1))]
    return np.concatenate(parts, axis=1).astype(np.float32)


def matrix(rotvec: Any) -> NDArray[np.float64]:
    """Rodrigues' formula, one turn."""
    angle = np.linalg.norm(rotvec)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = np.asarray(rotvec, np.float64) / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def quaternion(rotvec: NDArray[np.float64]) -> NDArray[np.float64]:
    angle = np.linalg.norm(rotvec, axis=1, keepdims=True)
    return np.concatenate([np.cos(angle / 2), np.sin(angle / 2) * rotvec / angle], axis=1)


def of_quaternion(q: Any) -> NDArray[np.float64]:
    w, x, y, z = np.asarray(q, np.float64)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


AXIS = spec("axis-angle")
form = st.sampled_from(list(FORMS))
seeds = st.integers(0, 10_000)


@settings(max_examples=60, deadline=None)
@given(first=form, second=form, seed=seeds, length=st.integers(0, 6))
def test_every_rotation_form_comes_back_from_every_other(first: str, second: str, seed: int, length: int) -> None:
    given_actions = moves(length, seed)
    a, b = spec(first), spec(second)
    there = convert_actions(convert_actions(given_actions, AXIS, a), a, b)
    assert there.shape == (length, b.width) and there.dtype == np.float32
    np.testing.assert_allclose(convert_actions(there, b, AXIS), given_actions, atol=2e-5)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from([("delta", "end effector"), ("absolute", "base")]), form=form, seed=seeds, n=st.integers(1, 6)
)
def test_frames_and_targets_come_back(kind: tuple[Any, str], form: str, seed: int, n: int) -> None:
    given_actions, here = moves(n, seed), states(n, seed)
    other = spec(form, *kind)
    there = convert_actions(given_actions, AXIS, other, here)
    np.testing.assert_allclose(convert_actions(there, other, AXIS, here), given_actions, atol=5e-5)


@settings(max_examples=40, deadline=None)
@given(
    order=st.permutations(range(7)),
    scale=st.lists(st.floats(0.01, 50), min_size=7, max_size=7),
    low=st.floats(-2, 1),
    width=st.floats(0.5, 3),
    closed=st.sampled_from([-1, 1]),
    seed=seeds,
)
def test_order_units_and_gripper_come_back(
    order: list[int], scale: list[float], low: float, width: float, closed: int, seed: int
) -> None:
    names = [AXIS.names[n] for n in order]
    at = names.index("gripper")
    lows, highs = ([end if n == at else -math.inf for n in range(7)] for end in (low, low + width))
    other = ActionSpec(
        tuple(names), "delta", "base", "axis-angle", at, closed, tuple(lows), tuple(highs), 10.0, tuple(scale)
    )
    given_actions = moves(5, seed)
    there = convert_actions(given_actions, AXIS, other)
    for n, name in enumerate(names):
        mine = given_actions[:, AXIS.names.index(name)].astype(np.float64)
        wanted = mine / scale[n]
        if name == "gripper":  # 0 is closed in AXIS.
            wanted = low + width * (1 - mine) if closed > 0 else low + width * mine
        np.testing.assert_allclose(there[:, n], wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(convert_actions(there, other, AXIS), given_actions, atol=2e-5)


def test_forms_are_what_their_names_say() -> None:
    given_actions = moves(8, 1)
    for number, rotvec in enumerate(given_actions[:, 3:6]):
        turn = matrix(rotvec)

        def of(form: str, at: int = number) -> NDArray[np.float32]:
            return convert_actions(given_actions, AXIS, spec(form))[at, 3:-1]

        np.testing.assert_allclose(of("6d columns"), turn[:, :2].T.ravel(), atol=1e-6)
        np.testing.assert_allclose(of("6d rows"), turn[:2].ravel(), atol=1e-6)
        np.testing.assert_allclose(of_quaternion(of("quaternion wxyz")), turn, atol=1e-6)
        np.testing.assert_allclose(np.roll(of("quaternion xyzw"), 1), of("quaternion wxyz"), atol=1e-7)
        assert of("quaternion wxyz")[0] >= 0
        roll, pitch, yaw = of("euler xyz").astype(np.float64)
        about = [matrix(angle * axis) for angle, axis in zip((roll, pitch, yaw), np.eye(3), strict=True)]
        np.testing.assert_allclose(about[2] @ about[1] @ about[0], turn, atol=1e-6)
        # Moving axes in the other order are the same three turns, and a dimension is found by its name.
        np.testing.assert_allclose(of("euler ZYX"), [yaw, pitch, roll], atol=1e-6)
        roll, pitch, yaw = of("euler zyx").astype(np.float64)
        about = [matrix(angle * axis) for angle, axis in zip((roll, pitch, yaw), np.eye(3), strict=True)]
        np.testing.assert_allclose(about[0] @ about[1] @ about[2], turn, atol=1e-6)


def test_targets_and_the_hands_frame_by_hand() -> None:
    given_actions, here = moves(6, 2).astype(np.float64), states(6, 3)
    absolute = convert_actions(given_actions, AXIS, spec("6d columns", "absolute"), here)
    hand = convert_actions(given_actions, AXIS, spec("6d columns", "delta", "end effector"), here)
    for n, row in enumerate(given_actions):
        position, turn = here.values[n, :3], of_quaternion(here.values[n, 3:7])
        np.testing.assert_allclose(absolute[n, :3], position + row[:3], atol=1e-6)
        np.testing.assert_allclose(absolute[n, 3:9], (matrix(row[3:6]) @ turn)[:, :2].T.ravel(), atol=1e-6)
        np.testing.assert_allclose(hand[n, :3], turn.T @ row[:3], atol=1e-6)
        np.testing.assert_allclose(hand[n, 3:9], (turn.T @ matrix(row[3:6]) @ turn)[:, :2].T.ravel(), atol=1e-6)
        np.testing.assert_allclose([absolute[n, 9], hand[n, 9]], row[6], atol=1e-6)


@pytest.mark.parametrize("length", [6, 7, 8])
@pytest.mark.parametrize("frame", ["base", "end effector"])
def test_a_lower_rate_composes_changes(length: int, frame: str) -> None:
    given_actions = moves(length, 4)
    slow = convert_actions(given_actions, spec("axis-angle", frame=frame), spec("6d rows", frame=frame, rate=10 / 3))
    assert len(slow) == math.ceil(length / 3)
    for n, start in enumerate(range(0, length, 3)):
        position, turn = np.zeros(3), np.eye(3)
        for row in given_actions[start : start + 3].astype(np.float64):
            if frame == "base":
                position, turn = position + row[:3], matrix(row[3:6]) @ turn
            else:
                position, turn = position + turn @ row[:3], turn @ matrix(row[3:6])
        np.testing.assert_allclose(slow[n, :3], position, atol=1e-6)
        np.testing.assert_allclose(slow[n, 3:9], turn[:2].ravel(), atol=1e-6)
        assert slow[n, 9] == given_actions[min(start + 2, length - 1), 6]


def test_a_lower_rate_of_perfect_tracking_is_the_same_by_every_way() -> None:
    """Where each target is the next state, composing changes equals subtracting targets."""
    here = states(7, 5, turn=0.4)
    targets = np.concatenate([here.values[1:], here.values[-1:]]).astype(np.float32)
    absolute = spec("quaternion wxyz", "absolute")
    changes = convert_actions(targets, absolute, AXIS, here)
    for frame in ("base", "end effector"):
        slow = spec("6d columns", "delta", frame, rate=5.0)
        direct = convert_actions(targets, absolute, slow, here)
        fast = spec("axis-angle", "delta", frame)
        composed = convert_actions(convert_actions(targets, absolute, fast, here), fast, slow)
        np.testing.assert_allclose(composed, direct, atol=1e-5)
        np.testing.assert_allclose(convert_actions(changes, AXIS, slow, here), direct, atol=1e-5)
    back = convert_actions(changes, AXIS, spec("quaternion wxyz", "absolute", rate=5.0), here)
    np.testing.assert_allclose(back[:, :3], targets[[1, 3, 5, 6], :3], atol=1e-5)


def test_joints_need_no_rotation() -> None:
    names = ("j1", "j2")
    delta = ActionSpec(names, "delta", "joint", "none", None, 1, (-1.0,) * 2, (1.0,) * 2, 10.0)
    absolute = replace(delta, kind="absolute", names=("j2", "j1"))
    here = States(absolute, np.array([[10.0, 20.0], [11.0, 21.0]]))
    found = convert_actions(np.array([[1.0, 2.0], [3.0, 4.0]]), delta, absolute, here)
    np.testing.assert_allclose(found, [[12, 21], [15, 24]])
    np.testing.assert_allclose(convert_actions(found, absolute, delta, here), [[1, 2], [3, 4]])


def test_bridge_in_robosuites_convention() -> None:
    from embodied_midtrain.robots.hdf5 import ROBOSUITE_POSE

    bridge = KNOWN["bridge_dataset"]
    found = convert_actions(
        np.float32([[0.01, 0.0, -0.05, 0.1, 0.0, 0.0, 1.0], [0, 0, 0, 0, 0, -0.25, 0.0]]),
        bridge,
        replace(ROBOSUITE_POSE, rate=bridge.rate),
    )
    np.testing.assert_allclose(found, [[0.2, 0, -1, 0.2, 0, 0, -1], [0, 0, 0, 0, 0, -0.5, 1]], atol=1e-6)


HAND = spec("axis-angle", "delta", "end effector")
ABSOLUTE = spec("axis-angle", "absolute")


@pytest.mark.parametrize(
    ("given_spec", "wanted", "state", "message"),
    [
        (AXIS, ABSOLUTE, None, "only with the state at each action, and none was given"),
        (AXIS, HAND, None, "only with the state"),
        (AXIS, replace(ABSOLUTE, kind="unknown"), STATE, "wanted spec does not say whether actions are changes"),
        (replace(AXIS, frame="table"), AXIS, STATE, "given spec's frame 'table' is not known"),
        (AXIS, spec("axis-angle", frame="world"), STATE, "place of the robot's base in the world"),
        (AXIS, spec("axis-angle", frame="joint"), STATE, "kinematics"),
        (AXIS, replace(ABSOLUTE, frame="end effector"), STATE, "has no meaning"),
        (AXIS, replace(AXIS, rotation="euler xyx"), STATE, "form 'euler xyx' is not known"),
        (AXIS, replace(AXIS, rotation="quaternion wxyz"), STATE, "names hold no qw, qx, qy, qz"),
        (AXIS, replace(spec("quaternion wxyz"), rotation="quaternion xyzw"), STATE, "but the names stand as"),
        (AXIS, replace(AXIS, scale=()), STATE, "the wanted spec does not say the units"),
        (replace(AXIS, scale=()), spec("6d rows", scale=()), STATE, "given spec and the wanted spec does not say"),
        (AXIS, ABSOLUTE, replace(STATE, scale=()), "the state's spec does not say the units"),
        (AXIS, ABSOLUTE, replace(STATE, frame="world"), "state is given in the frame 'world'"),
        (AXIS, ABSOLUTE, replace(STATE, kind="delta"), "must be absolute"),
        (AXIS, ABSOLUTE, replace(STATE, names=("a", *STATE.names[1:])), "the state has no x"),
        (AXIS, replace(AXIS, names=("a", *AXIS.names[1:])), STATE, "given actions have no a"),
        (AXIS, replace(AXIS, gripper=None), STATE, "wanted spec has no gripper"),
        (AXIS, replace(AXIS, gripper_closed=1, high=(math.inf,) * 7), STATE, "gripper's range is not known"),
        (AXIS, replace(AXIS, rate=4.0), STATE, "the new rate must divide"),
        (AXIS, replace(AXIS, rate=20.0), STATE, "the new rate must divide"),
        (AXIS, replace(AXIS, rate=0.0), STATE, "rate is not known"),
    ],
)
def test_what_is_not_defined_is_refused_by_name(
    given_spec: ActionSpec, wanted: ActionSpec, state: ActionSpec | None, message: str
) -> None:
    here = None if state is None else States(state, states(3, 0).values)
    with pytest.raises(ValueError, match=message):
        convert_actions(moves(3, 0), given_spec, wanted, here)


def test_what_would_be_lost_is_named() -> None:
    wide = ActionSpec(("x", "y", "torque"), "delta", "base", "none", None, 1, (-1.0,) * 3, (1.0,) * 3, 10.0)
    narrow = ActionSpec(("y", "x"), "delta", "base", "none", None, 1, (-1.0,) * 2, (1.0,) * 2, 10.0)
    with pytest.raises(ValueError, match="torque would be lost"):
        convert_actions(np.zeros((2, 3)), wide, narrow)
    flat = replace(narrow, frame="end effector")
    turned = States(STATE, states(2, 0).values)
    with pytest.raises(ValueError, match="x, y and z are needed"):
        convert_actions(np.zeros((2, 2)), replace(narrow, scale=(1.0, 1.0)), replace(flat, scale=(1.0, 1.0)), turned)
    with pytest.raises(ValueError, match="cannot be composed without their rotation"):
        convert_actions(np.zeros((2, 3)), replace(wide, names=("x", "y", "z"), frame="end effector"),
                        replace(wide, names=("x", "y", "z"), frame="end effector", rate=5.0))  # fmt: skip


def test_numbers_that_are_no_actions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"wanted \[time, 7\]"):
        convert_actions(np.zeros((2, 6)), AXIS, spec())
    with pytest.raises(ValueError, match="no numbers"):
        convert_actions(np.full((2, 7), np.nan), AXIS, spec())
    with pytest.raises(ValueError, match="length 0"):
        convert_actions(np.zeros((2, 8)), spec("quaternion wxyz"), AXIS)
    with pytest.raises(ValueError, match="parallel or empty"):
        convert_actions(np.ones((2, 10)), spec("6d rows"), AXIS)
    with pytest.raises(ValueError, match="2 states for 3 actions"):
        convert_actions(moves(3, 0), AXIS, ABSOLUTE, states(2, 0))
    with pytest.raises(ValueError, match="states hold"):
        convert_actions(moves(1, 0), AXIS, ABSOLUTE, States(STATE, np.full((1, 8), np.nan)))


def test_equal_specs_change_nothing() -> None:
    unknown = ActionSpec.unknown(3, 0.0)
    rows = np.float32([[1, 2, 3]])
    np.testing.assert_array_equal(convert_actions(rows, unknown, unknown), rows)
