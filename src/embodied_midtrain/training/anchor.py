"""Weights held near where they started: L2-SP (Li et al. 2018, arXiv 1802.01483), decoupled as AdamW's decay is.

As part of the loss the penalty would be divided by Adam's second moments, and hold least what is pushed most. Decoupled
it is p <- p - lr * anchor * (p - p0). Adam moves a weight by about lr a step, so one that is always pushed the same way
comes to rest 1 / anchor from its start.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


class Anchor:
    """Remembers the weights as they are now; `strength` 0 remembers and does nothing."""

    def __init__(self, weights: Mapping[str, nn.Parameter], strength: float) -> None:
        self._strength = strength
        self._held = [(p, p.detach().clone()) for p in weights.values()] if strength else []

    @torch.no_grad()
    def pull(self, rate: float) -> None:
        """After a step of the optimiser at this learning rate."""
        for weight, start in self._held:
            weight.sub_(weight - start, alpha=rate * self._strength)
