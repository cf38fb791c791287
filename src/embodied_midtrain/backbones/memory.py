"""How much memory training a backbone takes, told from its configuration before anything is loaded.

Weights, gradients and the optimiser's state are exact. Activations are what autograd keeps from forward to backward,
counted operation by operation for one layer and multiplied (as Korthikanti et al. 2022, section 4, do for GPT);
`tests/backbones/test_memory.py` holds them to within a factor of 1.5 of what tiny models really keep. What a device
library takes for itself (about half a GiB) comes on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from embodied_midtrain.backbones.families import family_of

Part = Literal["vision", "connector", "language"]
_BYTES = {"fp32": 4, "bf16": 2}
GIB = 1024**3


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """One step of training by AdamW, as `training.loop` does it: weights, gradients and moments in fp32."""

    tokens: int
    """In one forward pass, image tokens and padding among them: micro-batch times length, or a packed row's length."""
    pictures: int
    """In one forward pass; with tiles, each tile is one."""
    length: int = 0
    """Of one row; 0: all tokens are one packed row. Plain attention keeps its square for each row."""
    learnt: int = 0
    """Tokens that are trained on, for which the head is computed; 0: half of all."""
    method: Literal["full", "lora"] = "full"
    """Whether the parts themselves learn, or LoRA beside their linear layers."""
    rank: int = 16
    """Of LoRA."""
    train: tuple[Part, ...] = ("vision", "connector", "language")
    """Parts that learn."""
    compute: Literal["fp32", "bf16"] = "bf16"
    """Precision of the matrix products; bf16 is autocast, which keeps a copy of the weights."""
    checkpointing: bool = False
    """Whether only each layer's input is kept, and the layer computed again in the backward pass."""
    attention: Literal["eager", "fused"] = "fused"
    """Plain attention keeps its scores."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by part."""

    weights: int
    gradients: int
    optimiser: int
    copies: int
    """Of the weights in the precision of the arithmetic (autocast)."""
    activations: int
    head: int
    """Logits of the learnt tokens and what the loss makes of them."""
    process: int = 0
    """What the process holds beside the model: libraries and data. Known where it runs."""

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))

    def table(self) -> str:
        """One line a part, in GiB."""
        rows = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return "\n".join(f"{name:<12}{size / GIB:>10.3f} GiB" for name, size in [*rows, ("total", self.total)])


def estimate_memory(config: Any, plan: MemoryPlan) -> MemoryEstimate:
    """What one step of `plan` takes at its peak.

    Args:
        config: a transformers configuration of an image-text model.

    Raises:
        ValueError: on a plan without tokens.
    """
    if plan.tokens < 1 or plan.pictures < 0:
        raise ValueError(f"a plan needs tokens, and pictures cannot be fewer than none: {plan}")
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    return _estimate(model, plan)


def _estimate(model: Any, plan: MemoryPlan) -> MemoryEstimate:
    groups = family_of(model.config).groups(model)
    everything = _distinct([p for group in groups.values() for p in group])
    chosen = _distinct([p for name in plan.train for p in groups[name]])
    weights = _count(everything)
    trained, tensors = _count(chosen), len(chosen)
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    if plan.method == "lora":
        inside = {id(p) for p in chosen}
        head = model.get_output_embeddings()
        adapted = [m for m in linear if m is not head and id(m.weight) in inside]
        trained, tensors = sum(plan.rank * (m.in_features + m.out_features) for m in adapted), 2 * len(adapted)
        weights += trained
    copied = _count(_distinct([m.weight for m in linear])) if plan.compute == "bf16" else 0
    return MemoryEstimate(
        weights=4 * weights,
        gradients=4 * trained,
        # Two moments, and a step number of its own for each tensor.
        optimiser=4 * (2 * trained + tensors),
        copies=_BYTES["bf16"] * copied,
        activations=_language(model.config, plan) + _vision(model.config, plan),
        head=_head(model.config, plan),
    )


def _language(config: Any, plan: MemoryPlan) -> int:
    """Bytes that the language model keeps, for any part that learns: gradients go through it to all of them."""
    text = config.get_text_config()
    hidden, layers, heads = text.hidden_size, text.num_hidden_layers, text.num_attention_heads
    size = getattr(text, "head_dim", None) or hidden // heads
    wide, narrow = heads * size, (text.num_key_value_heads or heads) * size
    half = _BYTES[plan.compute]
    gemma2 = text.model_type == "gemma2"
    # Two norms in full precision: their input, that scaled, and it weighted.
    token = (10 if gemma2 else 6) * hidden * 4
    if plan.compute != "fp32":
        token += 2 * hidden * half
    # Queries, keys, values (repeated for each head), output; gate, its activation, up, their product.
    token += (4 * wide + 4 * text.intermediate_size) * half
    if text.model_type in ("qwen3", "qwen3_vl_text"):
        token += 2 * (wide + narrow) * 4
    if plan.attention == "eager" or gemma2:
        # Softmax in full precision; capped scores come with it.
        scores = heads * (plan.length or plan.tokens)
        token += wide * half + scores * (4 + (half if half != 4 else 0) + (half if gemma2 else 0))
    return _kept(token, 4 * hidden, plan.tokens, layers, plan)


def _vision(config: Any, plan: MemoryPlan) -> int:
    """Bytes that the vision part keeps, where it learns."""
    vision = config.vision_config
    if "vision" not in plan.train:
        return 0
    half = _BYTES[plan.compute]
    if hasattr(vision, "stages"):
        return plan.pictures * half * _convolutions(vision)
    hidden, layers = vision.hidden_size, vision.num_hidden_layers
    heads, inner = vision.num_attention_heads, vision.intermediate_size
    side = getattr(vision, "image_size", None)
    if side is None:
        # Pictures of any size: all tokens could be image tokens.
        patches = plan.tokens * vision.spatial_merge_size**2
        row = patches // max(plan.pictures, 1)
    else:
        row = (_first(side) // _first(vision.patch_size)) ** 2 + 1
        patches = plan.pictures * row
    gated = 4 if vision.model_type.startswith("qwen2_5") else 2
    token = 4 * hidden * 4 + (6 * hidden + gated * inner) * half
    if plan.attention == "eager":
        token += heads * row * (4 + (half if half != 4 else 0))
    return _kept(token, 4 * hidden, patches, layers, plan)


def _convolutions(vision: Any) -> int:
    """Values that the compact tower keeps of one picture."""
    size, width, kept = -(-vision.image_size // 2), vision.stem, 0
    for repeats, _, stride, expansion, out in vision.stages:
        for number in range(repeats):
            after = -(-size // stride) if number == 0 else size
            kept += size**2 * width * (1 + 2 * expansion) + after**2 * 2 * width * expansion
            size, width = after, out
    return int(kept)


def _kept(token: int, entry: int, tokens: int, layers: int, plan: MemoryPlan) -> int:
    """Bytes of all layers; with checkpointing their inputs, and one layer whole."""
    if plan.checkpointing:
        return tokens * (entry * layers + token)
    return tokens * token * layers


def _head(config: Any, plan: MemoryPlan) -> int:
    learnt = plan.learnt or (plan.tokens + 1) // 2
    # Logits as they come, in full precision, their log-softmax, and its gradient.
    return int(learnt * config.get_text_config().vocab_size * (_BYTES[plan.compute] + 12))


def _first(size: Any) -> int:
    return int(size[0] if isinstance(size, (list, tuple)) else size)


def _distinct(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Tied ones once."""
    return list({id(p): p for p in parameters}.values())


def _count(parameters: Sequence[Tensor]) -> int:
    return sum(p.numel() for p in parameters)
