"""From hidden states to one vector a sample.

The paper takes "the last hidden state" and does not say how tokens are pooled (EmbodiedMidtrain, section 3):
it is a setting here, recorded with every store.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["mean", "last", "image", "text"]


def pool_states(states: Tensor, ids: Tensor, real: Tensor, image_token: int, pooling: Pooling) -> Tensor:
    """Pool hidden states over tokens, in float32.

    Args:
        states: [batch, tokens, dim].
        ids: token ids [batch, tokens].
        real: 1 where a token is no padding [batch, tokens].
        image_token: the id that stands for image tokens.
        pooling: all tokens, the last one, those of the image, or all but those.

    Returns:
        [batch, dim]; a row without any token of the wanted kind is NaN.
    """
    keep = real.bool()
    if pooling == "last":
        last = keep.long().cumsum(1).argmax(1)
        return states[torch.arange(len(states)), last].float()
    if pooling == "image":
        keep = keep & (ids == image_token)
    elif pooling == "text":
        keep = keep & (ids != image_token)
    weight = keep.unsqueeze(-1).to(states.dtype)
    return (states * weight).sum(1, dtype=torch.float32) / weight.sum(1, dtype=torch.float32)
