"""What kind of policy it is: all that it takes to build its trained parts again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from embodied_midtrain.policies.fast import FastConfig
from embodied_midtrain.policies.flow import FlowConfig
from embodied_midtrain.policies.parallel import ParallelConfig
from embodied_midtrain.policies.prefix import Room
from embodied_midtrain.policies.reader import Sight

Mode = Literal["full", "lora", "frozen"]
Head = Literal["query", "parallel", "flow", "fast"]


@dataclass(frozen=True, kw_only=True)
class PolicyShape:
    """Saved with a policy, beside spec, normaliser and preprocessor.

    `camera` is the side in pixels of the demonstrations' frames: a sharper camera would show something else.
    `hidden` is the width of the backbone's states, `sight` what the reader gets of a frame (frozen mode only), `room`
    what a flow's expert shares with what it attends to. The other fields are those of `FinetuneConfig`.
    """

    mode: Mode
    head: Head = "query"
    chunk: int
    executed: int
    camera: int
    hidden: int
    layer: int
    widths: tuple[int, ...]
    reader_width: int
    reader_queries: int
    reader_blocks: int
    sight: Sight | None
    room: Room | None = None
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    fast: FastConfig = field(default_factory=FastConfig)

    @property
    def speaks(self) -> bool:
        """Whether the language model says FAST tokens, in rollouts or in training."""
        return self.head == "fast" or (self.head == "flow" and self.flow.insulate)
