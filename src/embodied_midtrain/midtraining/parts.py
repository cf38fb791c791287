"""Which parameters of a backbone learn."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from embodied_midtrain.backbones.backbone import Backbone


def chosen(backbone: Backbone, parts: Sequence[str], vision_last: float) -> list[nn.Parameter]:
    """The parameters of these parts, of vision only those in the last share of its layers.

    Args:
        parts: of "vision", "connector" and "language".
        vision_last: 1 is the whole vision part, its embeddings and norms included; below 1 only whole layers count.
    """
    groups = backbone.groups()
    if "vision" in parts and vision_last < 1.0:
        layers = vision_layers(backbone.tower)
        last = layers[len(layers) - math.ceil(vision_last * len(layers)) :]
        wanted = {id(p) for layer in last for p in layer.parameters()}
        groups["vision"] = [p for p in groups["vision"] if id(p) in wanted]
    return [parameter for name in parts for parameter in groups[name]]


def vision_layers(tower: nn.Module) -> list[nn.Module]:
    """A vision part's layers, first to last: its list with the most parameters, stages taken apart into their blocks.

    Raises:
        ValueError: where it has no list of layers.
    """
    lists = [module for module in tower.modules() if isinstance(module, nn.ModuleList) and len(module) > 0]
    if not lists:
        raise ValueError("vision_last: this backbone's vision part has no list of layers; set it to 0 or 1")
    longest = max(lists, key=lambda module: sum(p.numel() for p in module.parameters()))
    found: list[nn.Module] = []
    for layer in longest:
        found += list(layer) if isinstance(layer, (nn.Sequential, nn.ModuleList)) else [layer]
    return found
