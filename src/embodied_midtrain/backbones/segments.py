"""Attention of a packed row sample by sample: what would be masked away is not computed.

A packed row of T tokens has T x T pairs, of which only those within a sample count. Transformers masks the others; on
CPUs, where there is no kernel for packed rows, this takes one product for each sample instead.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NAME = "segments"


def attend_by_segments(language: nn.Module) -> bool:
    """Let a causal language model attend so, where its layers allow it; returns whether they do.

    Rows with an attention mask are computed as by "sdpa".
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    config: Any = language.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or getattr(config, "sliding_window", None) is not None:
        return False
    if getattr(config, "attn_logit_softcapping", None) is not None:
        return False
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _mask)
    language.set_attn_implementation(NAME)  # type: ignore[operator]
    return True


def _mask(*, attention_mask: Tensor | None = None, **given: Any) -> Tensor | None:
    from transformers.masking_utils import sdpa_mask

    return None if attention_mask is None else sdpa_mask(attention_mask=attention_mask, **given)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_ids: Tensor | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    """[batch, heads, tokens, size] -> [batch, tokens, heads, size]; positions start at 0 with each sample."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if attention_mask is not None or position_ids is None or len(query) > 1:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **given
        )
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    starts = (position_ids[0] == 0).nonzero()[:, 0].tolist()
    sizes = [end - start for start, end in zip(starts, [*starts[1:], query.shape[2]], strict=True)]
    seen = [
        F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scaling)
        for q, k, v in zip(query.split(sizes, 2), key.split(sizes, 2), value.split(sizes, 2), strict=True)
    ]
    return torch.cat([part.transpose(1, 2) for part in seen], 1), None
