"""A trained model drawn back towards its base: base + strength * (trained - base)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def remember(weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The weights as they are now, in the machine's memory."""
    return {name: p.detach().to("cpu", copy=True) for name, p in weights.items()}


@torch.no_grad()
def draw_back(weights: Mapping[str, nn.Parameter], base: Mapping[str, Tensor], strength: float) -> None:
    """Put the weights on the line from `base` (strength 0) through themselves (1), in place.

    Interpolation between a model and its fine-tuning (WiSE-FT, Wortsman et al. 2022, equation 1).
    """
    for name, parameter in weights.items():
        start = base[name].to(parameter.device)
        parameter.copy_(torch.lerp(start, parameter, strength))
