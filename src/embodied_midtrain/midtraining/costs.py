"""What training a backbone on a row costs in operations."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.training.operations import Operations, attention, counted, linear


def operations(backbone: Backbone, example: Rendered) -> Operations:
    """By the formula of `training.operations`, for the parts of the backbone that now learn.

    Args:
        example: a row with pictures, by which vision and connector are counted; one without: they are left out.
    """
    config = backbone.base.config.get_text_config()
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    head: nn.Module = backbone.base.get_output_embeddings()
    return Operations(
        token=linear(backbone.language),
        pair=attention(config.num_hidden_layers, heads * size),
        learnt=linear(head),
        pixel=_seeing(backbone, example) / numbers(example) if example.pixels else 0.0,
    )


def numbers(row: Rendered) -> int:
    """Of how many numbers a row's pictures consist."""
    # The others say how the pictures are laid out.
    return max((value.numel() for value in row.pixels.values()), default=0)


def _seeing(backbone: Backbone, example: Rendered) -> float:
    given: list[Tensor] = []
    handle = backbone.connector.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    pixels = {k: v for k, v in backbone.collate([example]).items() if k in example.pixels}
    try:
        both = counted(lambda: backbone.vision(pixels))
    finally:
        handle.remove()
    connector = counted(lambda: backbone.connector(given[0]))
    parts = backbone.groups()
    vision_learns = _learns(parts["vision"])
    tower = 0.0 if "vision" in pixels else (both - connector) * (3.0 if vision_learns else 1.0)
    return tower + connector * (3.0 if _learns(parts["connector"]) else 2.0 if vision_learns else 1.0)


def _learns(parameters: Sequence[nn.Parameter]) -> bool:
    return any(p.requires_grad for p in parameters)
