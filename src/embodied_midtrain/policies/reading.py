"""Frozen mode's nets: heads on an attention reader of the backbone's states, so that heads compare on a laptop."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.policies.encoder import encode
from embodied_midtrain.policies.flow import FlowHead, MemoryPrefix, noise_for
from embodied_midtrain.policies.heads import Answer, Goal, as_answer
from embodied_midtrain.policies.net import Net
from embodied_midtrain.policies.parallel import residual_head
from embodied_midtrain.policies.prefix import Prefix, Room
from embodied_midtrain.policies.query import two_branch_loss, two_branches
from embodied_midtrain.policies.reader import Reader
from embodied_midtrain.policies.shape import PolicyShape

if TYPE_CHECKING:
    from embodied_midtrain.policies.settings import FinetuneConfig

KEY_HEADS, DEPTH = 4, 32
"""Of an expert that attends to a reader: nothing that it attends to dictates them."""


class ReaderNet(Net):
    """The attention reader; what reads its queries is the subclasses' business."""

    def __init__(self, shape: PolicyShape, queries: int) -> None:
        super().__init__()
        assert shape.sight is not None, "a frozen policy knows what its reader sees"
        self.layer = shape.layer
        self.reader = Reader(shape.sight, width=shape.reader_width, queries=queries, blocks=shape.reader_blocks)
        self.sampling_seed = 0

    @abstractmethod
    def loss_of(self, states: Tensor, goal: Goal, config: FinetuneConfig) -> Tensor:
        """`loss`, from stored states [b, size]."""

    @abstractmethod
    def answer_of(self, states: Tensor, rows: Sequence[Rendered]) -> Answer:
        """`answer`, from the rows' states [b, size]."""

    def states(self, backbone: Backbone, rows: Sequence[Rendered]) -> Tensor:
        """What the reader gets of rows [b, size]."""
        sight = self.reader.sight
        return encode(backbone, rows, layer=self.layer, text_tokens=sight.text, cells=sight.cells > 0)[0]

    def answer(self, backbone: Backbone, rows: Sequence[Rendered]) -> Answer:
        return self.answer_of(self.states(backbone, rows), rows)

    def loss(self, backbone: Backbone, rows: Sequence[Rendered], goal: Goal, config: FinetuneConfig) -> Tensor:
        return self.loss_of(self.states(backbone, rows), goal, config)


class ReaderQueryNet(ReaderNet):
    """All queries, side by side, as the control feature of the two branches."""

    def __init__(self, shape: PolicyShape, spec: ActionSpec) -> None:
        super().__init__(shape, shape.reader_queries)
        self.head = two_branches(self.reader.features, shape, spec)

    def answer_of(self, states: Tensor, rows: Sequence[Rendered]) -> Answer:
        answer: Answer = self.head(self.reader(states))
        return answer

    def loss_of(self, states: Tensor, goal: Goal, config: FinetuneConfig) -> Tensor:
        return two_branch_loss(self.answer_of(states, ()), goal, config)


class ReaderParallelNet(ReaderNet):
    """One query of the reader for each time step (in place of reader_queries), and the residual MLP."""

    def __init__(self, shape: PolicyShape, spec: ActionSpec) -> None:
        super().__init__(shape, shape.chunk)
        self.chunk, self.gripper = shape.chunk, spec.gripper is not None
        self.head = residual_head(shape.reader_width, shape.reader_width, shape, spec)

    def forward(self, states: Tensor) -> Tensor:
        actions: Tensor = self.head(self.reader(states).unflatten(-1, (self.chunk, -1)))
        return actions

    def answer_of(self, states: Tensor, rows: Sequence[Rendered]) -> Answer:
        return as_answer(self(states), self.gripper)

    def loss_of(self, states: Tensor, goal: Goal, config: FinetuneConfig) -> Tensor:
        return F.l1_loss(self(states).float(), goal.vector)


class ReaderFlowNet(ReaderNet):
    """An expert that attends to the reader's queries."""

    def __init__(self, shape: PolicyShape, spec: ActionSpec) -> None:
        super().__init__(shape, shape.reader_queries)
        self.gripper = spec.gripper is not None
        room = Room(shape.flow.expert_layers, KEY_HEADS, KEY_HEADS, DEPTH)
        self.memory = MemoryPrefix(shape.reader_width, room)
        self.head = FlowHead(shape, spec, room, shape.flow.expert_width or shape.reader_width, ordered=True)

    def answer_of(self, states: Tensor, rows: Sequence[Rendered]) -> Answer:
        noise = noise_for(rows, self.head.size, self.sampling_seed).to(states.device)
        return as_answer(self.head.sample(noise, self._prefix(states)), self.gripper)

    def loss_of(self, states: Tensor, goal: Goal, config: FinetuneConfig) -> Tensor:
        return self.head.loss(goal.vector, self._prefix(states))

    def _prefix(self, states: Tensor) -> Prefix:
        prefix: Prefix = self.memory(self.reader(states).unflatten(-1, self.reader.queries.shape))
        return prefix
