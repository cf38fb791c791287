"""How a backbone is mid-trained: EmbodiedMidtrain's table 3 by default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from embodied_midtrain.training.loop import Optimisation

Packing = Literal["auto", "on", "off"]


@dataclass(frozen=True, kw_only=True)
class MidtrainConfig(Optimisation):
    """How a backbone is mid-trained. The defaults are the paper's."""

    method: Literal["full", "lora"] = "full"
    """Whether the weights themselves learn, or LoRA beside them that is merged at the end."""
    train: tuple[Literal["vision", "connector", "language"], ...] = ("vision", "connector", "language")
    """Parts of the backbone that learn. Without vision its output is computed once a sample and kept on disk."""
    vision_last: float = 1.0
    """Share of the vision part's layers that learn, counted from its end; 1: all of it."""
    lora_rank: int = 32
    """Rank of LoRA."""
    lora_alpha: float = 64.0
    """Scale of LoRA, times its rank."""
    lora_targets: tuple[str, ...] = ()
    """Only linear layers of these names, such as q_proj v_proj; none given: all in the parts that learn."""
    strength: float = 1.0
    """The result is base + strength * (trained - base), for full training and for LoRA."""
    max_tokens: int = 1024
    """Longer samples are skipped and counted."""
    packing: Packing = "auto"
    """Micro-batches as rows without padding, of which no sample sees another (on), or padded (off). The steps and what
    they learn are the same. auto: on for GPUs."""
    window: int | None = None
    """Tokens of a packed micro-batch; by default max_tokens. A GPU with room is faster with more."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, about a third more time."""
    keep: int | None = None
    """Only the first samples of the selection."""
    weights: dict[str, float] = field(default_factory=dict)
    """How often each source is drawn, as 'source weight' pairs; one without is not. None given: as selected."""
    repeats: bool = True
    """Whether samples come again where steps x batch is more than there is; if not, that is an error."""

    def check(self) -> None:
        super().check()
        if not self.train:
            raise ValueError("train names no part of the backbone: give vision, connector or language")
        if self.keep is not None and self.keep < 1:
            raise ValueError(f"keep is {self.keep}; it must be at least 1")
        if not 0.0 <= self.vision_last <= 1.0:
            raise ValueError(f"vision_last is {self.vision_last}; it is a share from 0 to 1")
        if self.train == ("vision",) and self.vision_last == 0.0:
            raise ValueError("nothing learns: train names vision alone, and vision_last is 0")
        if not self.strength > 0.0:
            raise ValueError(f"strength is {self.strength}; it must be above 0 (1: as trained)")
        if self.window is not None and self.window < self.max_tokens:
            raise ValueError(f"window ({self.window}) must hold the longest sample: at least max_tokens")

    @property
    def sees(self) -> bool:
        """Whether anything of the vision part learns."""
        return "vision" in self.train and self.vision_last > 0.0

    def tokens_at_once(self, device: torch.device) -> int | None:
        """Tokens of a packed micro-batch on this device; None: micro-batches are padded there."""
        on = device.type == "cuda" if self.packing == "auto" else self.packing == "on"
        return (self.window or self.max_tokens) if on else None
