"""Actions as the head's goals, and the head's answers as actions: one codec for training and rollouts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.robots.actions import FLOOR, ActionNormaliser


@dataclass(frozen=True)
class ActionCodec:
    """Arm dimensions by quantiles to [-1, 1]; the gripper as closed or not (VLM4VLA)."""

    spec: ActionSpec
    normaliser: ActionNormaliser

    def checked(self) -> ActionCodec:
        """Itself.

        Raises:
            ValueError: where the normaliser cannot be of this robot's data: another width, or a range that reaches
                beyond the bounds that actions have.
        """
        spec, normaliser = self.spec, self.normaliser
        if normaliser.width != spec.width:
            raise ValueError(
                f"the action statistics are of {normaliser.width} dimensions, the action spec has {spec.width} "
                f"({', '.join(spec.names)}): they belong to another data set"
            )
        middle, half = np.asarray(normaliser.middle), np.asarray(normaliser.half)
        # A range that was widened to the floor may stand over the bounds by that much.
        slack = FLOOR + 1e-3 * half
        outside = (middle - half < np.asarray(spec.low) - slack) | (middle + half > np.asarray(spec.high) + slack)
        if outside.any():
            at = int(np.argmax(outside))
            raise ValueError(
                f"the action statistics say that {spec.names[at]} runs from {middle[at] - half[at]:.4g} to "
                f"{middle[at] + half[at]:.4g}, but the action spec's bounds are {spec.low[at]:.4g} and "
                f"{spec.high[at]:.4g}: the statistics are of another data set, or the spec's bounds are wrong"
            )
        return self

    def encode(self, actions: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """[..., width] in the spec's units -> arm goals [..., arm], and closed [...] (1 or 0; None: no gripper)."""
        arm = np.clip(self.normaliser.apply(actions)[..., list(self.spec.arm)], -1.0, 1.0).astype(np.float32)
        if self.spec.gripper is None:
            return arm, None
        toward_closed = (actions[..., self.spec.gripper] - self._gripper_middle()) * self.spec.gripper_closed
        return arm, (toward_closed > 0).astype(np.float32)

    def decode(self, arm: NDArray[np.float32], closed: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """The inverse, up to the clipped quantiles and the gripper's in-between values: within the spec's bounds."""
        actions = np.zeros((*arm.shape[:-1], self.spec.width), np.float32)
        actions[..., list(self.spec.arm)] = arm
        actions = self.normaliser.invert(actions)
        low, high = np.asarray(self.spec.low, np.float32), np.asarray(self.spec.high, np.float32)
        gripper = self.spec.gripper
        if gripper is not None and closed is not None:
            shut, open_ = (high, low) if self.spec.gripper_closed > 0 else (low, high)
            actions[..., gripper] = np.where(closed, shut[gripper], open_[gripper])
        return np.clip(actions, low, high).astype(np.float32)

    def _gripper_middle(self) -> float:
        assert self.spec.gripper is not None
        return 0.5 * (self.spec.low[self.spec.gripper] + self.spec.high[self.spec.gripper])
