"""From hidden states to one vector a sample.

The paper takes "the last hidden state" and does not say how tokens are pooled (EmbodiedMidtrain, section 3):
it is a setting here, recorded with every store.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from embodied_midtrain.backbones.rows import token_kinds

Pooling = Literal["mean", "last", "image", "text", "prompt", "answer"]


def pool_states(
    states: Tensor, ids: Tensor, real: Tensor, learnt: Tensor, image_token: int, pooling: Pooling
) -> Tensor:
    """Pool hidden states over tokens, in float32.

    Args:
        states: [batch, tokens, dim].
        ids: token ids [batch, tokens].
        real: 1 where a token is no padding [batch, tokens].
        learnt: true where a token is an answer's [batch, tokens].
        image_token: the id that stands for image tokens.
        pooling: all tokens, the last one, or those of one kind (`backbones.rows.token_kinds`).

    Returns:
        [batch, dim]; a row without any token of the wanted kind is NaN.
    """
    keep = real.bool()
    if pooling == "last":
        last = keep.long().cumsum(1).argmax(1)
        return states[torch.arange(len(states)), last].float()
    if pooling != "mean":
        keep = token_kinds(ids, real, learnt, image_token)[pooling]
    weight = keep.unsqueeze(-1).to(states)
    return (states * weight).sum(1, dtype=torch.float32) / weight.sum(1, dtype=torch.float32)
