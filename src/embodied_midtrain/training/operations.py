"""How many operations training on some rows takes, by a formula: for model-flops use and as a floor of its time.

Counted are multiplications and additions of matrix products and convolutions, of tokens that are no padding, without
what gradient checkpointing does again:

- each linear layer of the language model, a token: 2 * weights forward, 2 * weights for the gradient of its input,
  2 * weights for its own gradient where it learns (so 6 * weights, or 4 * weights beside LoRA);
- attention, a sample of L tokens and a layer: 6 * width * L^2 (scores and values, the lower triangle only, forward once
  and backward twice);
- the head, a learnt token: as a linear layer; at tokens that are not learnt it is not needed;
- vision tower and connector, a picture: what one forward pass of a real row was counted to take, times 3 for a part
  that learns, 2 for one that only hands a gradient on, 1 for one that does neither, 0 where its output was kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Operations:
    """What a token, a pair of tokens, a learnt token and a picture's element take, forward and backward."""

    token: float
    pair: float
    """For each two tokens of a sample (L^2 of them), over all layers."""
    learnt: float
    pixel: float
    """For each number that a picture comes as (rows of a backbone may hold pictures of different sizes)."""

    def of(self, lengths: Sequence[int], learnt: int, pixels: int) -> float:
        """Operations of some samples: their lengths, their learnt tokens, the numbers of their pictures."""
        pairs = float(sum(length * length for length in lengths))
        return self.token * sum(lengths) + self.pair * pairs + self.learnt * learnt + self.pixel * pixels


def linear(module: nn.Module) -> float:
    """Operations a token of all linear layers in `module`, forward and backward."""
    total = 0.0
    for part in module.modules():
        if isinstance(part, nn.Linear):
            total += part.weight.numel() * (6.0 if part.weight.requires_grad else 4.0)
    return total


def attention(layers: int, width: int) -> float:
    """Operations a pair of tokens of causal attention, forward and backward.

    Args:
        width: heads times their size.
    """
    return 6.0 * layers * width


def counted(forward: Callable[[], object]) -> float:
    """Operations of a call, as torch counts them."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward()
    return float(counter.get_total_flops())
