"""Rotations in the forms that data sets write them in, by scipy.

axis-angle                         rx, ry, rz (or roll, pitch, yaw): the axis, as long as the angle in radians
euler ABC, such as euler xyz       roll about x, pitch about y, yaw about z (or rx, ry, rz), in radians, turned in
                                   the order of the letters: small ones about axes that stand still, capitals about
                                   axes that turn along
quaternion wxyz, quaternion xyzw   qw, qx, qy, qz; written with qw >= 0
6d columns                         r11, r21, r31, r12, r22, r32: the matrix's first two columns (arXiv 1812.07035)
6d rows                            r11, r12, r13, r21, r22, r23: its first two rows
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.extras import require

_TURNS = (("roll", "pitch", "yaw"), ("rx", "ry", "rz"))
_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "axis-angle": _TURNS,
    "quaternion wxyz": (("qw", "qx", "qy", "qz"),),
    "quaternion xyzw": (("qx", "qy", "qz", "qw"),),
    "6d columns": (("r11", "r21", "r31", "r12", "r22", "r32"),),
    "6d rows": (("r11", "r12", "r13", "r21", "r22", "r23"),),
}
_SMALLEST = 1e-6
"""Length of a quaternion or a column below which it says nothing of a direction."""


def rotation_dimensions(spec: ActionSpec) -> tuple[int, ...]:
    """Indices of the numbers that make up the rotation, in the order that `read_rotation` wants; none for "none".

    Raises:
        ValueError: on a form that is not known, or where the names that it needs are missing or in another order.
    """
    form = spec.rotation
    if form == "none":
        return ()
    if (order := _euler_order(form)) is not None:
        choices = tuple(tuple(names["xyz".index(letter)] for letter in order.lower()) for names in _TURNS)
    elif form in _NAMES:
        choices = _NAMES[form]
    else:
        raise ValueError(
            f"the rotation form {form!r} is not known; known are: {', '.join(_NAMES)}, and 'euler' with an order such "
            "as 'euler xyz'"
        )
    for names in choices:
        if set(names) <= set(spec.names):
            found = tuple(spec.names.index(name) for name in names)
            if len(found) != 3 and list(found) != sorted(found):
                raise ValueError(f"the rotation form is {form!r}, but the names stand as {', '.join(spec.names)}")
            return found
    wanted = " or ".join(", ".join(sorted(names)) for names in choices)
    raise ValueError(f"the rotation form is {form!r}, but the names hold no {wanted}: {', '.join(spec.names)}")


def read_rotation(form: str, numbers: NDArray[np.float64]) -> Any:
    """Numbers [time, n] in a form -> scipy's Rotation of that many turns.

    Raises:
        ValueError: where numbers are no rotation, such as a quaternion of length 0.
    """
    rotation = require("scipy.spatial.transform", "data").Rotation
    if (order := _euler_order(form)) is not None:
        return rotation.from_euler(order, numbers)
    if form == "axis-angle":
        return rotation.from_rotvec(numbers)
    if form.startswith("quaternion"):
        if len(numbers) and np.linalg.norm(numbers, axis=1).min() < _SMALLEST:
            raise ValueError("a quaternion of length 0 is no rotation")
        return rotation.from_quat(numbers, scalar_first=form.endswith("wxyz"))
    assert form in ("6d columns", "6d rows"), form
    return rotation.from_matrix(_orthogonal(numbers, transposed=form == "6d rows"))


def write_rotation(form: str, rotation: Any) -> NDArray[np.float64]:
    """The inverse of `read_rotation`: [time, n]."""
    if (order := _euler_order(form)) is not None:
        with warnings.catch_warnings():
            # At a right angle of the second one only the sum of the others is fixed; any choice is the same rotation.
            warnings.simplefilter("ignore", UserWarning)
            return np.asarray(rotation.as_euler(order))
    if form == "axis-angle":
        return np.asarray(rotation.as_rotvec())
    if form.startswith("quaternion"):
        return np.asarray(rotation.as_quat(canonical=True, scalar_first=form.endswith("wxyz")))
    assert form in ("6d columns", "6d rows"), form
    matrix = rotation.as_matrix()
    first = matrix if form == "6d rows" else matrix.transpose(0, 2, 1)
    return np.asarray(first[:, :2].reshape(-1, 6))


def _euler_order(form: str) -> str | None:
    """The letters after "euler", where they are three different axes of one kind."""
    kind, _, order = form.partition(" ")
    fits = kind == "euler" and sorted(order.lower()) == ["x", "y", "z"] and order in (order.lower(), order.upper())
    return order if fits else None


def _orthogonal(numbers: NDArray[np.float64], *, transposed: bool) -> NDArray[np.float64]:
    """Matrices [time, 3, 3] whose first two columns (or rows) span what the two given ones span."""
    first, second = numbers[:, :3], numbers[:, 3:]
    a = _unit(first)
    b = _unit(second - (a * second).sum(1, keepdims=True) * a)
    return np.stack([a, b, np.cross(a, b)], axis=1 if transposed else 2)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    if len(length) and length.min() < _SMALLEST:
        raise ValueError("two parallel or empty columns of a matrix are no rotation")
    return np.asarray(vectors / length)
