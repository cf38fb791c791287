"""A backbone as a module that says its loss: what DDP and FSDP wrap."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.rows import TEXT_KEYS
from embodied_midtrain.training.team import Team, whole


class Learner(nn.Module):
    """Mean next-token loss over the learnt tokens of a batch."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.base = backbone.base
        self._backbone = backbone

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        loss = self._backbone.loss(batch)
        if set(batch) <= set(TEXT_KEYS):
            # Without a picture too every process must come to a gradient for every weight: they are exchanged.
            parts = self._backbone.groups()
            for parameter in [*parts["vision"], *parts["connector"]]:
                if parameter.requires_grad:
                    loss = loss + 0.0 * parameter.flatten()[0]
        return loss


def blocks(backbone: Backbone) -> list[str]:
    """Class names of the language model's layers: what FSDP gathers one at a time.

    Layers of the vision part are left together with the rest: a step without pictures would not call them.
    """
    layers = getattr(backbone.language, "layers", ())
    return sorted({type(layer).__name__ for layer in layers})


def spare(backbone: Backbone) -> nn.Module:
    """A copy of the model in the machine's memory, to put a sharded training's weights into."""
    return copy.deepcopy(backbone.base).to("cpu")


@torch.no_grad()
def gather(backbone: Backbone, spared: nn.Module | None, weights: Mapping[str, nn.Parameter], team: Team) -> None:
    """Give the first process the whole model again, after sharded training; every process must call it."""
    held = dict(spared.named_parameters()) if spared is not None else {}
    for name, parameter in weights.items():
        value = whole(parameter.detach())
        if team.first:
            held[name].copy_(value)
    if spared is not None:
        backbone.model = spared
