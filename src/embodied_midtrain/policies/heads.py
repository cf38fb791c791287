"""What turns a backbone's states into actions by regression: VLM4VLA's two branches, OpenVLA-OFT's residual MLP.

The words here: a goal is the chunk of actions that a frame is to be answered with, as `ActionCodec.encode` gives it;
an answer is what a head says. Every head answers alike, so that a policy does not care which one it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
Answer = tuple[Tensor, Tensor | None]
"""Arm [b, chunk, arm], normalised, and the gripper [b, chunk] (above 0: closed; None: no gripper)."""


@dataclass(frozen=True)
class Goal:
    """What is to be answered: arm [b, chunk, arm], normalised; closed [b, chunk], 1 or 0 (None: no gripper)."""

    arm: Tensor
    closed: Tensor | None

    @property
    def vector(self) -> Tensor:
        """The same as one vector a step, the gripper last as +1 (closed) or -1: [b, chunk, width]."""
        return self.arm if self.closed is None else torch.cat([self.arm, 2 * self.closed[..., None] - 1], dim=-1)

    def __len__(self) -> int:
        return len(self.arm)


def as_answer(vector: Tensor, gripper: bool) -> Answer:
    """The inverse of `Goal.vector` for what a head says: [b, chunk, width] -> arm, gripper."""
    return (vector[..., :-1], vector[..., -1]) if gripper else (vector, None)


class TwoBranchHead(nn.Module):
    """Linear(d, d/2), ReLU, Linear(d/2, w0); then two MLPs w0-w1-...-out: arm with tanh, gripper as logits.

    VLM4VLA's (arXiv 2601.03309).

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

    def forward(self, feature: Tensor) -> Answer:
        """[b, d] -> arm [b, chunk, arm] in (-1, 1), and the gripper's logits [b, chunk] (above 0: closed)."""
        shared = self.trunk(feature)
        arm = torch.tanh(self.arm(shared)).unflatten(-1, (self.chunk, -1))
        return arm, None if self.gripper is None else self.gripper(shared)


def _branch(widths: Sequence[int], out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], out))


class ResidualHead(nn.Module):
    """LN, Linear, ReLU, n times x + ReLU(Linear(LN x)), LN, Linear: one step's actions from its feature.

    OpenVLA-OFT's MLP-ResNet (arXiv 2502.19645), with n = 2 blocks.
    """

    def __init__(self, features: int, width: int, out: int, blocks: int = 2) -> None:
        super().__init__()
        self.inward = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, width), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU()) for _ in range(blocks)
        )
        self.outward = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out))

    def forward(self, features: Tensor) -> Tensor:
        """[..., features] -> [..., out]"""
        x = self.inward(features)
        for block in self.blocks:
            x = x + block(x)
        answer: Tensor = self.outward(x)
        return answer


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
