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

import torch
from torch import Tensor
from transformers import DynamicCache

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.backbones.backbone import Backbone


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
    at = next_position(batch, lengths)[:, None] + torch.arange(steps, device=device)
    rope = positions(backbone, states, at)
    return Prefix([layer.keys for layer in kept], [layer.values for layer in kept], seen, rope), states


def next_position(batch: Mapping[str, Tensor], lengths: Tensor) -> Tensor:
    """The position that follows each row's first `lengths` tokens: [b]."""
    given = batch.get("position_ids")
    if given is None:
        return lengths
    # Models with positions in several directions, such as Qwen-VL, go on behind the largest.
    given = given.to(lengths.device)
    largest = given.amax(0) if given.ndim == 3 else given
    inside = torch.arange(largest.shape[1], device=lengths.device) < lengths[:, None]
    return largest.masked_fill(~inside, -1).amax(1) + 1


def positions(backbone: Backbone, like: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """The language model's own rotary cosines and sines at positions [b, steps]: each [b, steps, depth]."""
    rotary = getattr(backbone.language, "rotary_emb", None)
    if rotary is None:
        raise StageError(f"{backbone.name} has no rotary positions; choose another head")
    try:
        cosines, sines = rotary(like, at)
    except (IndexError, RuntimeError):
        cosines, sines = rotary(like, at.expand(3, -1, -1))
    # In words, a model with positions in several directions has the same one in all.
    return (cosines[0], sines[0]) if cosines.ndim == 4 else (cosines, sines)
