"""What actions mean in well-known data sets whose files do not say it."""

from __future__ import annotations

import math

from embodied_midtrain.episodes import ActionSpec

_POSE = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
_ENDLESS = (math.inf,) * 6


def _pose(*, rotation: str, closed: int, gripper: tuple[float, float], rate: float) -> ActionSpec:
    low, high = (*(-v for v in _ENDLESS), gripper[0]), (*_ENDLESS, gripper[1])
    return ActionSpec(_POSE, "delta", "base", rotation, 6, closed, low, high, rate, (1.0,) * 7)


KNOWN: dict[str, ActionSpec] = {
    # BridgeData V2: the gripper's number is 1 for open, 0 for closed.
    "bridge_dataset": _pose(rotation="euler xyz", closed=-1, gripper=(0.0, 1.0), rate=5.0),
    "bridge_orig": _pose(rotation="euler xyz", closed=-1, gripper=(0.0, 1.0), rate=5.0),
    # CALVIN's rel_actions: changes times 50 (metres) and 20 (radians); the gripper's number is 1 for open, -1 else.
    "calvin": ActionSpec(
        _POSE, "delta", "world", "euler xyz", 6, -1, (-1.0,) * 7, (1.0,) * 7, 30.0, (0.02,) * 3 + (0.05,) * 3 + (1.0,)
    ),
}


def known_spec(name: str, width: int) -> ActionSpec | None:
    """The spec of a data set by name, where it is known and as wide."""
    spec = KNOWN.get(name)
    return spec if spec is not None and spec.width == width else None
