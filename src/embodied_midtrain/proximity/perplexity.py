"""Likelihood of a sample's answers under a backbone (EmbodiedMidtrain, table 2).

Under a VLM that was tuned on robot data with the actions as text, low perplexity is proximity; less what the VLM had
before the tuning, it is the delta.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.backbones.precision import Precision, autocast
from embodied_midtrain.features.extractor import batches_of
from embodied_midtrain.features.sharing import apart, joined_states, share_prefixes, share_vision

LARGEST = 80.0
"""Mean negative log-likelihood beyond which perplexity is not told apart: float32 ends at e^88."""


@torch.inference_mode()
def answer_losses(
    backbone: Backbone, rows: Sequence[Rendered], *, batch_size: int, precision: Precision
) -> NDArray[np.float32]:
    """Mean negative log-likelihood of each row's learnt tokens [rows]; NaN where a row has none."""
    found = np.full(len(rows), np.nan, np.float32)
    with autocast(backbone.device, precision):
        shared = share_prefixes(share_vision(backbone, rows, batch_size), backbone.image_token_id)
        for chosen in batches_of([len(one.row) for one in shared], batch_size):
            some = [shared[i] for i in chosen]
            batch, (states,) = joined_states(backbone, some, (-1,))
            for numbers, own, ids, _, _ in apart(some, batch, states):
                for place, number in enumerate(numbers):
                    # A state says what comes after its token.
                    at = torch.tensor(rows[number].learnt[1:]).nonzero()[:, 0]
                    if len(at):
                        logits = backbone.logits(own[place, at.to(own.device)]).float()
                        targets = ids[place, at + 1].to(logits.device)
                        found[number] = float(torch.nn.functional.cross_entropy(logits, targets))
    return found


def perplexity(losses: NDArray[np.float32]) -> NDArray[np.float32]:
    """From mean negative log-likelihoods."""
    found: NDArray[np.float32] = np.exp(np.minimum(losses, LARGEST))
    return found
