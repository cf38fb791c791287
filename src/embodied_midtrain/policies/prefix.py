"""What an action expert attends to: keys and values of every layer of a language model that has read a prompt.

In pi0 (arXiv 2410.24164) a second, narrower transformer runs beside the language model, and both attend jointly, layer
by layer, under a mask by blocks: [image, text] | [actions], where a later block sees the earlier ones and never the
reverse. So nothing of the language model's pass depends on the actions. It can therefore run first, alone; what is
kept of it are its keys and values, rotary positions already applied, as a generation cache keeps them. Attention of
the actions over [K_vlm; K_act] is then the joint attention, number for number, in training (the cache keeps gradients)
as in rollouts, where the prompt is read once for all integration steps.

Within the block of image and text the model keeps the mask that it was trained with: causal, for all but PaliGemma.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.rows import lengthen


@dataclass(frozen=True)
class Room:
    """What the expert's attention shares with the language model's: layers, query heads, key heads, width of a head."""

    layers: int
    heads: int
    key_heads: int
    depth: int

    @classmethod
    def of(cls, backbone: Backbone) -> Room:
        config = backbone.base.config.get_text_config()
        heads = config.num_attention_heads
        depth = getattr(config, "head_dim", None) or backbone.hidden // heads
        return cls(backbone.layers, heads, getattr(config, "num_key_value_heads", None) or heads, depth)


@dataclass(frozen=True)
class Prefix:
    """What was read before the actions.

    Attributes:
        keys, values: one a layer, [b, key heads, tokens, depth].
        seen: bool [b, tokens]: which of them there are; None: all.
        rope: cosines and sines [b, steps, depth] of the positions that the actions take; None: no positions.
    """

    keys: list[Tensor]
    values: list[Tensor]
    seen: Tensor | None = None
    rope: tuple[Tensor, Tensor] | None = None

    def detached(self) -> Prefix:
        """The same, through which no gradient goes back."""
        keys, values = ([t.detach() for t in part] for part in (self.keys, self.values))
        return Prefix(keys, values, self.seen, self.rope)


def read_prefix(
    backbone: Backbone, batch: Mapping[str, Tensor], steps: int, lengths: Tensor | None = None
) -> tuple[Prefix, Tensor]:
    """Let the language model read a batch once.

    Args:
        steps: actions that are going to follow.
        lengths: tokens of each row that belong to the prompt [b]; None: all real ones. The others are not seen.

    Returns:
        What the actions attend to, and the last layer's states [b, tokens, hidden].

    Raises:
        StageError: where the model keeps no keys and values for each layer, as an attention that slides does not.
    """
    cache = DynamicCache()
    states = backbone.states(batch, cache=cache)
    tokens, device = states.shape[1], states.device
    kept = [layer for layer in cache.layers if getattr(layer, "keys", None) is not None]
    if len(kept) != backbone.layers or any(layer.keys.shape[2] != tokens for layer in kept):
        raise StageError(f"{backbone.name} keeps no keys and values of all tokens in every layer; choose another head")
    lengths = (batch["attention_mask"].sum(1) if lengths is None else lengths).to(device)
    seen = torch.arange(tokens, device=device) < lengths[:, None]
    rope = rotary(backbone, states, next_positions(backbone, batch, lengths, steps))
    return Prefix([layer.keys for layer in kept], [layer.values for layer in kept], seen, rope), states


def next_positions(backbone: Backbone, batch: Mapping[str, Tensor], lengths: Tensor, steps: int) -> Tensor:
    """The positions, as the family counts them, that follow each row's first `lengths` tokens: [b, steps].

    Where positions have several directions, words have the same in all of them.
    """
    batch = {k: v.to(lengths.device) for k, v in batch.items()}
    inside = torch.arange(batch["input_ids"].shape[1], device=lengths.device) < lengths[:, None]
    cut = {**batch, "attention_mask": inside.long()}
    if "rope_positions" in batch:
        cut["rope_positions"] = batch["rope_positions"].masked_fill(~inside, 0)
    longer = lengthen(cut, steps)
    blank = torch.zeros(*longer["input_ids"].shape, 1, device=lengths.device)
    places = backbone.family.reading(backbone.base, blank, longer, [])["position_ids"]
    at = lengths[:, None] + torch.arange(steps, device=lengths.device)
    if places is None:
        return at
    found: Tensor = (places[-1] if places.ndim == 3 else places).gather(1, at)
    return found


def rotary(backbone: Backbone, like: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """The language model's own rotary cosines and sines at positions [b, steps]: each [b, steps, depth]."""
    embedding: Any = getattr(backbone.language, "rotary_emb", None)
    if embedding is None:
        raise StageError(f"{backbone.name} has no rotary positions; choose another head")
    try:
        cosines, sines = embedding(like, at)
    except (IndexError, RuntimeError):
        # Qwen2.5-VL's wants a position for each direction.
        cosines, sines = embedding(like, at.expand(3, -1, -1))
    return (cosines[0], sines[0]) if cosines.ndim == 4 else (cosines, sines)
