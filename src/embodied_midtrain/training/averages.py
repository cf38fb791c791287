"""A running average of the weights (EMA), which can be the result in place of the last ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class Averages:
    """average <- decay * average + (1 - decay) * weight, after each update.

    The decay of update n (from 0) is at most (1 + n) / (10 + n), so that the first weights do not linger.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.values: dict[str, Tensor] = {name: p.detach().clone() for name, p in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, nn.Parameter], step: int) -> None:
        """Take in the weights that update `step` made."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in weights.items():
            self.values[name].lerp_(parameter.detach(), 1.0 - decay)

    @torch.no_grad()
    def put_into(self, weights: Mapping[str, nn.Parameter]) -> None:
        """Make the averages the weights."""
        for name, parameter in weights.items():
            parameter.copy_(self.values[name])

    @contextlib.contextmanager
    def in_place_of(self, weights: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """The averages are the weights within the block; afterwards the weights are what they were."""
        kept = {name: p.detach().clone() for name, p in weights.items()}
        self.put_into(weights)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in weights.items():
                    parameter.copy_(kept[name])
