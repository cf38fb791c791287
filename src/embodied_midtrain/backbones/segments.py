"""Attention of a packed row sample by sample: what would be masked away is not computed.

A packed row of T tokens has T x T pairs, of which only those within a sample count. Transformers masks the others; on
CPUs, where there is no kernel for packed rows, this takes one product for samples of like length instead. Only within
attention is anything padded, and since attention is causal, padding on the right needs no mask.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NAME = "segments"
SPREAD = 1.25
"""Longest over shortest of the samples that share a product."""
SHORT = 256
"""Up to this length plain attention is quicker on CPUs than the fused one."""


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
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    starts = tuple((position_ids[0] == 0).nonzero()[:, 0].tolist())
    groups, back = _layout(starts, query.shape[2], str(query.device))
    # [tokens, heads, size]
    flat = [x[0].transpose(0, 1) for x in (query, key, value)]
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    seen = []
    for count, length, index in groups:
        q, k, v = (x.index_select(0, index).unflatten(0, (count, length)).transpose(1, 2) for x in flat)
        seen.append(_causal(q, k, v, scale, dropout).transpose(1, 2).flatten(0, 1))
    return torch.cat(seen).index_select(0, back)[None], None


def _causal(query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> Tensor:
    """[samples, heads, length, size]"""
    length = query.shape[2]
    if query.device.type != "cpu" or length > SHORT:
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True, scale=scale)
    scores = (query * scale) @ key.transpose(2, 3)
    hidden = torch.full((length, length), float("-inf"), dtype=scores.dtype).triu(1)
    weights = F.softmax(scores + hidden, -1, dtype=torch.float32).to(value.dtype)
    return F.dropout(weights, dropout) @ value


@lru_cache(maxsize=8)
def _layout(starts: tuple[int, ...], tokens: int, device: str) -> tuple[list[tuple[int, int, Tensor]], Tensor]:
    """Groups (samples, length, tokens taken), and for each token of the row where the groups' outputs have it."""
    sizes = [end - start for start, end in zip(starts, [*starts[1:], tokens], strict=True)]
    order = sorted(range(len(sizes)), key=lambda n: sizes[n])
    members: list[list[int]] = []
    for number in order:
        if members and sizes[number] <= SPREAD * sizes[members[-1][0]]:
            members[-1].append(number)
        else:
            members.append([number])
    groups = []
    back = torch.zeros(tokens, dtype=torch.long)
    at = 0
    for group in members:
        length = sizes[group[-1]]
        within = torch.arange(length)
        # Past a sample's end its last token is taken again; nobody looks at it.
        rows = [starts[n] + within.clamp(max=sizes[n] - 1) for n in group]
        groups.append((len(group), length, torch.cat(rows).to(device)))
        for place, n in enumerate(group):
            back[starts[n] : starts[n] + sizes[n]] = at + place * length + within[: sizes[n]]
        at += len(group) * length
    return groups, back.to(device)
