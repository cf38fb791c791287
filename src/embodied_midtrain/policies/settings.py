"""How a policy is trained: VLM4VLA's settings by default. Each head's own settings stand with the head."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from embodied_midtrain.episodes import ACTION_PROMPT, target_prompt
from embodied_midtrain.policies.fast import FastConfig
from embodied_midtrain.policies.flow import FlowConfig
from embodied_midtrain.policies.heads import ArmLoss
from embodied_midtrain.policies.joint import JointConfig
from embodied_midtrain.policies.parallel import ParallelConfig
from embodied_midtrain.policies.shape import Head, Mode
from embodied_midtrain.policies.start import StartConfig
from embodied_midtrain.training.loop import Optimisation


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(Optimisation):
    """How a policy is trained. The defaults of the full mode are the paper's."""

    chunk: int
    """Actions predicted at a time. No default: it belongs to the robot and its rate."""
    executed: int
    """Of these, how many a rollout executes before it looks again."""
    mode: Mode = "full"
    """What learns: full and lora train the backbone with the head, frozen only a reader of its states."""
    head: Head = "query"
    """How actions come about: a query token and two MLPs (VLM4VLA); parallel placeholders, regressed (OpenVLA-OFT);
    flow matching by an action expert (pi0); or FAST tokens as words of the language model."""
    steps: int = 16000
    """Updates of the weights."""
    milestones: tuple[int, ...] = ()
    """Also keep the policy as it is after these steps, as milestones/STEP, to see success while it was trained."""
    warmup_steps: int | None = 500
    """Steps in which the learning rate rises; None: by warmup_ratio."""
    head_lr: float | None = None
    """Full and LoRA mode: peak learning rate of what is new beside the backbone; None: lr."""
    train: tuple[Literal["vision", "connector", "language"], ...] = ("vision", "connector", "language")
    """Parts of the backbone that full and lora train."""
    lora_rank: int = 32
    """Rank of LoRA."""
    lora_alpha: float = 64.0
    """Scale of LoRA, times its rank."""
    layers: int | None = None
    """Keep only the language model's first layers, in training and in the saved policy; None: all."""
    tasks: tuple[str, ...] = ()
    """Only demonstrations of these tasks; none given: of all."""
    episodes_per_task: int | None = None
    """Only the first demonstrations of each task."""
    stride: int = 1
    """Train on every n-th frame."""
    image: int = 224
    """Side in pixels that frames are brought to before the backbone's own preprocessing."""
    template: str = ACTION_PROMPT
    """The user text, with {instruction} in it."""
    crop: float = 1.0
    """Side of random crops in training, as a share of the frame's (VLM4VLA: 0.9); 1: none."""
    arm_loss: ArmLoss = "huber"
    """Query head: error of the arm; huber is VLM4VLA's code, squared the formula of its paper, absolute L1."""
    gripper_weight: float = 0.01
    """Query head: weight of the gripper's cross-entropy, 0.01 in VLM4VLA's code, 1 in the formula of its paper."""
    widths: tuple[int, ...] = (1024, 1024, 512, 256)
    """Query head: widths of what its branches share, then of their layers."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    fast: FastConfig = field(default_factory=FastConfig)
    start: StartConfig = field(default_factory=StartConfig)
    joint: JointConfig = field(default_factory=JointConfig)
    layer: int = -1
    """Frozen mode: the hidden layer that is read; -1: the last, after the final norm. Only layers up to it run."""
    text_tokens: int = 4
    """Frozen mode: states kept of the prompt's last text tokens."""
    cells: bool = False
    """Frozen mode: let the reader also see the vision tower's cells, past the connector and the language model."""
    reader_width: int = 256
    """Frozen mode: width of the reader."""
    reader_queries: int = 8
    """Frozen mode: the reader's queries."""
    reader_blocks: int = 2
    """Frozen mode: the reader's cross-attention blocks."""

    def check(self) -> None:
        super().check()
        if not 1 <= self.executed <= self.chunk:
            raise ValueError(f"executed is {self.executed}; it must be from 1 to chunk ({self.chunk})")
        if not all(0 < step < self.steps for step in self.milestones):
            raise ValueError(f"milestones {self.milestones} must lie before the last of {self.steps} steps")
        if self.stride < 1 or self.image < 16 or len(self.widths) < 2:
            raise ValueError("stride must be at least 1, image at least 16, and widths at least two numbers")
        if not 0.5 <= self.crop <= 1.0:
            raise ValueError(f"crop is {self.crop}; it is a share of the side from 0.5 to 1")
        if self.mode == "frozen" and self.crop < 1.0:
            raise ValueError("frozen mode computes each frame once: it cannot crop at random; set crop to 1")
        if self.head_lr is not None and (self.mode == "frozen" or not self.head_lr > 0):
            raise ValueError(f"head_lr is {self.head_lr}: it must be above 0, and frozen mode has lr alone")
        if self.mode != "frozen" and not self.train:
            raise ValueError("train names no part of the backbone; use mode frozen")
        if self.mode == "frozen" and (self.head == "fast" or self.flow.insulate):
            raise ValueError("in frozen mode the language model learns nothing, and so can say no action tokens")
        if self.mode == "frozen" and self.anchor:
            raise ValueError("in frozen mode nothing of the backbone moves: anchor has nothing to hold; leave it out")
        if self.mode == "frozen" and self.layers is not None:
            raise ValueError("in frozen mode, `layer` says how much of the language model runs; leave `layers` out")
        self.parallel.check()
        self.flow.check()
        if self.head == "fast" or self.flow.insulate:
            self.fast.check(self.chunk)
        target_prompt("", self.template)
