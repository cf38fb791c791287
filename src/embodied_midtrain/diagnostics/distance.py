"""How far a model's weights are from where they began: relative L2 distance, by part and by layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.backbones.backbone import Backbone


def weight_distances(base: Backbone, model: Backbone) -> dict[str, dict[str, dict[str, Any]]]:
    """|W - W0| / |W0| over all weights of each part ("parts") and of each layer of the language model ("layers").

    Raises:
        StageError: where the two are not of one architecture.
    """
    before, after = dict(base.base.named_parameters()), dict(model.base.named_parameters())
    if _shapes(before) != _shapes(after):
        differ = sorted({name for name, _ in _shapes(before).items() ^ _shapes(after).items()})[:3]
        raise StageError(
            f"{base.name} and {model.name} are not of one architecture ({', '.join(differ)} differ): a distance of "
            "weights has no meaning. Give the base that the model was adapted from."
        )
    groups = model.groups()
    part_of = {id(p): name for name, group in groups.items() for p in group}
    parts: dict[str, list[float]] = {name: [0.0, 0.0, 0.0] for name in (*groups, "all")}
    layers: dict[str, list[float]] = {}
    for name, weight in after.items():
        was = before[name].detach().to(weight.device).double()
        moved, size = float((weight.detach().double() - was).square().sum()), float(was.square().sum())
        for sums, key in ((parts, part_of[id(weight)]), (parts, "all"), (layers, layer_of(name))):
            if key:
                row = sums.setdefault(key, [0.0, 0.0, 0.0])
                row[0], row[1], row[2] = row[0] + moved, row[1] + size, row[2] + weight.numel()
    return {"parts": _shown(parts), "layers": _shown(layers)}


def in_order(parts: Mapping[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Parts as pictures pass through them, the whole last."""
    order = ("vision", "connector", "language", "all")
    return sorted(parts.items(), key=lambda part: order.index(part[0]))


def layer_of(name: str) -> str:
    """The number of the language model's layer that a weight belongs to; empty for others."""
    found = re.search(r"(?:language_model|text_model)\.(?:model\.)?layers\.(\d+)\.", name)
    return found.group(1) if found else ""


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def _shown(sums: Mapping[str, list[float]]) -> dict[str, dict[str, Any]]:
    return {
        name: {"relative": (moved / size) ** 0.5 if size else None, "moved": moved**0.5, "weights": int(count)}
        for name, (moved, size, count) in sums.items()
    }
