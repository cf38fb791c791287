"""Where the language model should look while it speaks of a place: help in learning to point.

That a name in the question leads to the visual token which means it, and that token's place to digits, takes a chain
of attention which is slow to be found from the digits alone (300 steps: no trace). In training, a third of the heads of
one layer are therefore drawn to the right visual token at the positions where a coordinate is said or was asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from embodied_midtrain.backbones.backbone import Backbone, Rendered

HEADS = 3
"""How many heads of the layer are drawn; the others stay free."""


class Gaze:
    """Finds coordinates in rendered rows, and measures whether attention is where they say."""

    def __init__(self, backbone: Backbone) -> None:
        tokenizer = backbone.processor.tokenizer
        self.side: int = backbone.base.config.tokens_per_side
        self.image = backbone.image_token_id
        self.layer = 2 * backbone.layers // 3
        """The one whose attention is drawn: late enough to know the question, early enough to use what it finds."""
        self._digits = {tokenizer.convert_tokens_to_ids(str(n)): n for n in range(10)}
        self._open = {tokenizer.convert_tokens_to_ids(t) for t in ("(", "Ġ(")}
        self._comma, self._space = (tokenizer.convert_tokens_to_ids(t) for t in (",", "Ġ"))

    def spots(self, row: Rendered) -> list[tuple[int, int]]:
        """(position that looks, visual token that it should look at) for every point that is said or asked about."""
        found = []
        for at, token in enumerate(row.ids):
            point = self._point(row.ids, at) if token in self._open else None
            if point is None:
                continue
            cell = int(point[1] * self.side) * self.side + int(point[0] * self.side)
            if row.learnt[at]:
                # What comes after the bracket is the first digit across; after the space, the first digit down.
                found += [(at, cell), (at + 4, cell)]
            elif True in row.learnt[at:]:
                # "What is at (37, 62)?": the answer's first word is "A", and after it comes the name.
                found.append((row.learnt.index(True, at), cell))
        return found

    def _point(self, ids: Sequence[int], at: int) -> tuple[float, float] | None:
        part = list(ids[at + 1 : at + 8])
        if len(part) < 7 or part[2] != self._comma or part[3] != self._space or part[6] in (self._comma, *self._digits):
            return None
        numbers = [self._digits.get(part[k]) for k in (0, 1, 4, 5)]
        if any(n is None for n in numbers):
            return None
        a, b, c, d = (int(n) for n in numbers if n is not None)
        return (10 * a + b) / 100, (10 * c + d) / 100

    def loss(self, rows: Sequence[Rendered], ids: Tensor, attention: Tensor) -> Tensor:
        """Mean negative log of the attention that rests on the right visual token.

        Args:
            ids: [batch, tokens].
            attention: [batch, heads, tokens, tokens] of the layer `self.layer`.
        """
        spots = [(n, *spot) for n, row in enumerate(rows) if row.pixels for spot in self.spots(row)]
        if not spots:
            return attention.new_zeros(())
        row, query, cell = (torch.tensor(column, device=ids.device) for column in zip(*spots, strict=True))
        # In a conversation with a picture, the visual tokens are one run.
        start = (ids == self.image).float().argmax(1)
        weight = attention[row, :HEADS, query, start[row] + cell].float().mean(1)
        return -(weight + 1e-4).log().mean()


def looking_states(backbone: Backbone, batch: dict[str, Tensor], layer: int) -> tuple[Tensor, Tensor]:
    """Last hidden states [batch, tokens, hidden], and the attention [batch, heads, tokens, tokens] of one layer."""
    out: Any = backbone.language(
        inputs_embeds=backbone.embed(batch),
        attention_mask=batch["attention_mask"],
        use_cache=False,
        output_attentions=True,
    )
    return out.last_hidden_state, out.attentions[layer]
