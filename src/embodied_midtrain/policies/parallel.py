"""OpenVLA-OFT's head: the whole chunk in one pass through placeholders, regressed with L1 (arXiv 2502.19645).

K x D placeholders with zero embeddings stand after the prompt, one for each number of the chunk. They see the prompt
and each other (a block in the mask that is otherwise the model's own causal one); the prompt sees none of them. The D
states of a step, side by side, go through a residual MLP that says the step's D numbers; the gripper is one of them,
+1 for closed.

Placeholders that are all zero differ by their positions alone, from the second layer on: in the first, their queries
are zero and all see the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.policies.heads import Answer, Goal, ResidualHead, as_answer
from embodied_midtrain.policies.net import Net

if TYPE_CHECKING:
    from embodied_midtrain.policies.settings import FinetuneConfig
    from embodied_midtrain.policies.shape import PolicyShape


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """Parallel decoding."""

    placeholders: Literal["numbers", "steps"] = "numbers"
    """One placeholder for each number of the chunk, seeing each other (OpenVLA-OFT); or one learned token for each
    time step, under the model's causal mask: shorter, and no mask of our own."""
    residual_width: int | None = None
    """Width of the residual MLP; None: the backbone's (frozen mode: the reader's)."""
    residual_blocks: int = 2
    """Blocks of the residual MLP."""

    def check(self) -> None:
        """Raise `ValueError` on settings that cannot be meant."""
        if self.residual_blocks < 0 or (self.residual_width or 1) < 1:
            raise ValueError(f"residual_width {self.residual_width} and residual_blocks {self.residual_blocks}")


class ParallelNet(Net):
    """Placeholders and the residual MLP on their last states."""

    placeholders: Tensor

    def __init__(self, shape: PolicyShape, spec: ActionSpec) -> None:
        super().__init__()
        self.chunk, self.gripper = shape.chunk, spec.gripper is not None
        self.together = shape.parallel.placeholders == "numbers"
        each = spec.width if self.together else 1
        self.places = shape.chunk * each
        zeros = torch.zeros(1, shape.hidden)
        if self.together:
            self.register_buffer("placeholders", zeros, persistent=False)
        else:
            self.placeholders = nn.Parameter(zeros)
        self.head = residual_head(shape.hidden * each, shape.hidden, shape, spec)

    def forward(self, backbone: Backbone, rows: Sequence[Rendered]) -> Tensor:
        """Rows to normalised actions [b, chunk, width]."""
        batch = backbone.collate(rows)
        queries = self.placeholders.expand(self.places, -1)
        states = backbone.states(batch, queries=queries, together=self.together)
        actions: Tensor = self.head(backbone.last(states, batch, self.places).reshape(len(rows), self.chunk, -1))
        return actions

    def answer(self, backbone: Backbone, rows: Sequence[Rendered]) -> Answer:
        return as_answer(self(backbone, rows), self.gripper)

    def loss(self, backbone: Backbone, rows: Sequence[Rendered], goal: Goal, config: FinetuneConfig) -> Tensor:
        return F.l1_loss(self(backbone, rows).float(), goal.vector)


def residual_head(features: int, width: int, shape: PolicyShape, spec: ActionSpec) -> ResidualHead:
    """The residual MLP that a policy's shape means, from one step's feature to its actions."""
    settings = shape.parallel
    return ResidualHead(features, settings.residual_width or width, spec.width, settings.residual_blocks)
