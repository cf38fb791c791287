"""VLM4VLA's action head: one feature in, a chunk of arm motions and gripper states out (arXiv 2601.03309)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ArmLoss = Literal["huber", "squared", "absolute"]
ERRORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "huber": F.huber_loss,
    "squared": F.mse_loss,
    "absolute": F.l1_loss,
}


class TwoBranchHead(nn.Module):
    """Linear(d, d/2), ReLU, Linear(d/2, w0); then two MLPs w0-w1-...-out: arm with tanh, gripper as logits.

    Args:
        features: d, width of the control feature.
        chunk: predicted time steps.
        arm: action dimensions that are not the gripper.
        gripper: whether there is a gripper.
        widths: w0, w1, ...; VLM4VLA uses 1024, 1024, 512, 256.
    """

    def __init__(
        self, features: int, chunk: int, arm: int, gripper: bool, widths: Sequence[int] = (1024, 1024, 512, 256)
    ) -> None:
        super().__init__()
        self.chunk = chunk
        self.trunk = nn.Sequential(nn.Linear(features, features // 2), nn.ReLU(), nn.Linear(features // 2, widths[0]))
        self.arm = _branch(widths, chunk * arm)
        self.gripper = _branch(widths, chunk) if gripper else None
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor | None]:
        """[b, d] -> arm [b, chunk, arm] in (-1, 1), and the gripper's logits [b, chunk] (above 0: closed)."""
        shared = self.trunk(feature)
        arm = torch.tanh(self.arm(shared)).unflatten(-1, (self.chunk, -1))
        return arm, None if self.gripper is None else self.gripper(shared)


def _branch(widths: Sequence[int], out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], out))


def action_loss(
    arm: Tensor,
    logits: Tensor | None,
    arm_goal: Tensor,
    closed: Tensor | None,
    *,
    arm_loss: ArmLoss = "huber",
    gripper_weight: float = 0.01,
) -> Tensor:
    """Arm error plus weighted binary cross-entropy of the gripper, each a mean over batch, time and dimensions.

    VLM4VLA's code uses the Huber loss (delta 1) and weight 0.01, the formula in its paper the squared error and
    equal weights; both are settings. The absolute error is OpenVLA-OFT's (arXiv 2502.19645).

    Args:
        arm, arm_goal: [b, chunk, arm], normalised.
        logits, closed: [b, chunk]; closed is 1 where the gripper is to be closed.
    """
    loss: Tensor = ERRORS[arm_loss](arm.float(), arm_goal)
    if logits is not None and closed is not None:
        loss = loss + gripper_weight * F.binary_cross_entropy_with_logits(logits.float(), closed)
    return loss
