"""VLM4VLA's head: one learned query token after everything, and two branches that read its last state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.policies.heads import Answer, Goal, TwoBranchHead, action_loss
from embodied_midtrain.policies.net import Net
from embodied_midtrain.policies.shape import PolicyShape

if TYPE_CHECKING:
    from embodied_midtrain.policies.settings import FinetuneConfig


class QueryNet(Net):
    """The query token, zero at first (arXiv 2601.03309), and the head that reads the last layer's state at it."""

    def __init__(self, shape: PolicyShape, spec: ActionSpec) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, shape.hidden))
        self.head = two_branches(shape.hidden, shape, spec)

    def answer(self, backbone: Backbone, rows: Sequence[Rendered]) -> Answer:
        batch = backbone.collate(rows)
        states = backbone.states(batch, queries=self.query)
        answer: Answer = self.head(backbone.last(states, batch, 1)[:, 0])
        return answer

    def loss(self, backbone: Backbone, rows: Sequence[Rendered], goal: Goal, config: FinetuneConfig) -> Tensor:
        return two_branch_loss(self.answer(backbone, rows), goal, config)


def two_branches(features: int, shape: PolicyShape, spec: ActionSpec) -> TwoBranchHead:
    """The head that a policy's shape means, on a feature of that width."""
    return TwoBranchHead(features, shape.chunk, len(spec.arm), spec.gripper is not None, shape.widths)


def two_branch_loss(answer: Answer, goal: Goal, config: FinetuneConfig) -> Tensor:
    """`action_loss` as the config has it."""
    return action_loss(*answer, goal.arm, goal.closed, arm_loss=config.arm_loss, gripper_weight=config.gripper_weight)
