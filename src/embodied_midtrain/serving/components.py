"""An action spec in the words of vla-eval: components with a form each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.robots.conversions import AXES
from embodied_midtrain.robots.rotations import rotation_dimensions

ROTATIONS = {"axis-angle": "axis_angle", "euler xyz": "euler_xyz", "quaternion xyzw": "quaternion_xyzw"}
"""vla-eval's names of rotation forms; others are announced under ours."""


def components(spec: ActionSpec, announced: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Position, rotation and gripper as vla-eval's `DimSpec` has them in plain values; "actions" for anything else.

    Args:
        announced: forms by component that take the place of what would be said.
    """
    turning = rotation_dimensions(spec)
    if not set(AXES) <= set(spec.names):
        found = {"actions": {"name": "actions", "dims": spec.width, "format": f"{spec.kind}_{spec.frame}"}}
    else:
        found = {"position": {"name": "position", "dims": 3, "format": f"{spec.kind}_xyz"}}
        if turning:
            form = ROTATIONS.get(spec.rotation, spec.rotation)
            found["rotation"] = {"name": "rotation", "dims": len(turning), "format": form}
        if spec.gripper is not None:
            found["gripper"] = _gripper(spec)
    for name, form in (announced or {}).items():
        found[name] = {**found[name], "format": form}
    return found


def _gripper(spec: ActionSpec) -> dict[str, Any]:
    assert spec.gripper is not None
    low, high = spec.low[spec.gripper], spec.high[spec.gripper]
    closing = "positive" if spec.gripper_closed > 0 else "negative"
    form = "binary_close_01" if (low, high, closing) == (0, 1, "positive") else f"binary_close_{closing}"
    row: dict[str, Any] = {"name": "gripper", "dims": 1, "format": form}
    return {**row, "range": [low, high]} if math.isfinite(low) and math.isfinite(high) else row
