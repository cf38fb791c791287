"""What a client may send: one look at the world, checked before a policy sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST, LARGEST = 16, 2048
"""Sides of a picture in pixels."""
LONGEST = 1000
"""Letters of an instruction."""


class BadObservation(ValueError):
    """An observation that no action can be given for; the message says what is wrong, for the client."""


@dataclass(frozen=True)
class Look:
    """What a policy is shown.

    Attributes:
        frame: uint8 [height, width, 3], upright.
        instruction: what the robot was asked.
        restart: whether a new subtask begins, for which no action is left over.
    """

    frame: NDArray[np.uint8]
    instruction: str
    restart: bool = False


def read_look(payload: Any, camera: str | None, *, mirrored: bool = False) -> Look:
    """A look out of an observation's payload.

    Args:
        camera: which picture; None: the only one.

    Raises:
        BadObservation: missing keys, wrong shapes, dtypes or sizes, values that are no numbers.
    """
    if not isinstance(payload, Mapping):
        raise BadObservation(f"an observation is a mapping, not {type(payload).__name__}")
    _check_numbers(payload, "observation")
    frame = _frame(payload.get("images"), camera)
    text = payload.get("task_description")
    if not isinstance(text, str) or not text.strip():
        raise BadObservation("task_description is missing: wanted the instruction as text")
    if len(text) > LONGEST:
        raise BadObservation(f"task_description has {len(text)} letters, at most {LONGEST}")
    if mirrored:
        frame = np.ascontiguousarray(frame[:, ::-1])
    return Look(frame, text.strip(), payload.get("episode_restart") is True)


def _frame(images: Any, camera: str | None) -> NDArray[np.uint8]:
    if not isinstance(images, Mapping) or not images:
        raise BadObservation("images is missing: wanted a mapping from camera to uint8 [height, width, 3]")
    names = ", ".join(map(str, images))
    if camera is None and len(images) > 1:
        raise BadObservation(f"there are several images ({names}): start the server with --camera")
    if camera is not None and camera not in images:
        raise BadObservation(f"images has no '{camera}'; it has: {names}")
    frame = images[camera] if camera is not None else next(iter(images.values()))
    name = camera or next(iter(images))
    if not isinstance(frame, np.ndarray):
        raise BadObservation(f"images.{name} is {type(frame).__name__}, wanted an array uint8 [height, width, 3]")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise BadObservation(
            f"images.{name} is {frame.dtype} {list(frame.shape)}, wanted uint8 [height, width, 3] (0 to 255, RGB)"
        )
    if not all(SMALLEST <= side <= LARGEST for side in frame.shape[:2]):
        raise BadObservation(
            f"images.{name} is {frame.shape[1]} x {frame.shape[0]}, wanted sides of {SMALLEST} to {LARGEST} pixels"
        )
    return frame


def _check_numbers(value: Any, where: str) -> None:
    """A simulator that has blown up says so in its state, even where a policy does not look at it."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_numbers(inner, f"{where}.{name}")
    elif isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise BadObservation(f"{where} is {value.dtype}, wanted numbers")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise BadObservation(f"{where} holds values that are no numbers (NaN or infinite)")
    elif isinstance(value, float) and not np.isfinite(value):
        raise BadObservation(f"{where} is {value}")
