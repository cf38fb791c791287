"""Rows to the hidden states that a reader sees: one path for the training cache and for rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.policies.reader import Sight


@torch.inference_mode()
def see(backbone: Backbone, rows: Sequence[Rendered]) -> Tensor:
    """The vision tower's output for rows of one picture each: float16 [n, tiles, tokens, dv].

    In half precision because it may be kept on disk; rollouts round likewise, so that both see the same.
    """
    pixels = {k: v for k, v in backbone.collate(rows).items() if any(k in row.pixels for row in rows)}
    return backbone.vision(pixels).half().unflatten(0, (len(rows), -1))


def with_vision(rows: Sequence[Rendered], seen: Tensor) -> list[Rendered]:
    """The rows with the vision tower's output [n, tiles, tokens, dv] in place of their pixels."""
    return [replace(row, pixels={"vision": feature.float()}) for row, feature in zip(rows, seen, strict=True)]


@torch.inference_mode()
def encode(
    backbone: Backbone,
    rows: Sequence[Rendered],
    *,
    layer: int,
    text_tokens: int,
    cells: bool = False,
    seen: Tensor | None = None,
) -> tuple[Tensor, Sight]:
    """A layer's states at the image tokens, then at the last text tokens; then the tower's cells if wanted.

    Args:
        seen: `see` of these rows, where it is at hand.

    Returns:
        float16 [n, size], and what its columns are.

    Raises:
        StageError: where rows differ in their number of image tokens, have fewer text tokens than wanted, or the
            backbone does not give out its cells.
    """
    if backbone.caches_vision:
        seen = see(backbone, rows) if seen is None else seen
        rows = with_vision(rows, seen)
    elif cells:
        raise StageError(f"{backbone.name} does not give out its vision tower's cells; set cells to false")
    batch = backbone.collate(rows)
    picture = batch["input_ids"] == backbone.image_token_id
    counts, lengths = picture.sum(1), batch["attention_mask"].sum(1)
    if not bool((counts == counts[0]).all()):
        raise StageError(f"frames of one policy must have the same number of image tokens, found {counts.tolist()}")
    if int((lengths - counts).min()) < text_tokens:
        shortest = int((lengths - counts).min())
        raise StageError(f"text_tokens is {text_tokens}, but the shortest prompt has {shortest}; choose fewer")
    states = backbone.states(batch, layer=layer)
    images = states[picture.to(states.device)].view(len(rows), -1, states.shape[-1])
    text = backbone.last(states, batch, text_tokens, queries=False)
    kept = torch.cat([images, text], dim=1).half()
    if not cells or seen is None:
        return kept.flatten(1), Sight(kept.shape[1], kept.shape[2], text_tokens)
    grid = seen.flatten(1, 2).to(kept.device)
    sight = Sight(kept.shape[1], kept.shape[2], text_tokens, grid.shape[1], grid.shape[2])
    return torch.cat([kept.flatten(1), grid.flatten(1)], dim=1), sight


def shorten(backbone: Backbone, layers: int) -> None:
    """Take the language model's layers from `layers` on away for good, in place; the final norm stays.

    Raises:
        ValueError: where it has fewer.
    """
    if not 1 <= layers <= backbone.layers:
        raise ValueError(f"layers is {layers}: {backbone.name} has {backbone.layers}")
    language: Any = backbone.language
    language.layers = language.layers[:layers]
    for config in {id(c): c for c in (backbone.base.config.get_text_config(), language.config)}.values():
        config.num_hidden_layers = layers
        if (kinds := getattr(config, "layer_types", None)) is not None:
            config.layer_types = kinds[:layers]
    backbone.layers = layers
