"""Samples made ready, and how they become one batch: padded, or packed into one row without padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

TokenKind = Literal["image", "text", "prompt", "answer"]
IGNORED = -100
"""Label of a token that is not trained on."""
TEXT_KEYS = (
    "input_ids",
    "attention_mask",
    "labels",
    "position_ids",
    "rope_positions",
    "token_type_ids",
    "mm_token_type_ids",
)
"""What a batch holds of its tokens; everything else is of its pictures."""


@dataclass(frozen=True)
class Rendered:
    """One sample made ready, before batching."""

    ids: list[int]
    """Token ids, image tokens expanded."""
    learnt: list[bool]
    """True at tokens that are trained on: assistant text and its end token."""
    pixels: dict[str, Tensor] = field(default_factory=dict)
    """What the processor made of the pictures (may be empty), or {"vision": [n, tokens, width]} from `vision`."""

    def __len__(self) -> int:
        return len(self.ids)

    def labels(self) -> Tensor:
        """[tokens]: what is learnt, IGNORED elsewhere."""
        return torch.where(torch.tensor(self.learnt), torch.tensor(self.ids), IGNORED)


def collate(rows: Sequence[Rendered], pad: int) -> dict[str, Tensor]:
    """Rows as one batch, padded on the right with the token `pad`: see `Backbone.collate`."""
    if not rows:
        raise ValueError("collate needs at least one row")
    length = max(len(row) for row in rows)
    ids = torch.full((len(rows), length), pad)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    labels = torch.full((len(rows), length), IGNORED)
    for n, row in enumerate(rows):
        ids[n, : len(row)] = torch.tensor(row.ids)
        mask[n, : len(row)] = 1
        labels[n, : len(row)] = row.labels()
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, **pixels_of(rows)}


def pack(rows: Sequence[Rendered]) -> dict[str, Tensor]:
    """Rows one after the other as one: see `Backbone.pack`."""
    if not any(len(row) for row in rows):
        raise ValueError("pack needs at least one row with a token")
    rows = [row for row in rows if len(row)]
    labels = torch.cat([row.labels() for row in rows])
    places = torch.cat([torch.arange(len(row)) for row in rows])
    # What comes before a sample's first token is another sample.
    labels[places == 0] = IGNORED
    ids = torch.tensor([token for row in rows for token in row.ids])
    return {"input_ids": ids[None], "labels": labels[None], "position_ids": places[None], **pixels_of(rows)}


def pixels_of(rows: Sequence[Rendered]) -> dict[str, Tensor]:
    """The pixel tensors of all rows, one after the other."""
    keys = dict.fromkeys(key for row in rows for key in row.pixels)
    return {key: _join([row.pixels[key] for row in rows if key in row.pixels]) for key in keys}


def _join(tensors: list[Tensor]) -> Tensor:
    """Along the first dimension, the others padded with zeros to the largest."""
    sizes = [max(dims) for dims in zip(*(t.shape[1:] for t in tensors), strict=True)]
    padded = []
    for tensor in tensors:
        pads: list[int] = []
        for have, want in zip(reversed(tensor.shape[1:]), reversed(sizes), strict=True):
            pads += [0, want - have]
        padded.append(F.pad(tensor, pads) if any(pads) else tensor)
    return torch.cat(padded)


def token_kinds(ids: Tensor, real: Tensor, learnt: Tensor, image_token: int) -> dict[TokenKind, Tensor]:
    """Which tokens are of the picture, which are text, and of the text what is asked and what is answered.

    Args:
        ids: token ids [batch, tokens].
        real: 1 where a token is no padding [batch, tokens].
        learnt: true where a token is trained on [batch, tokens].

    Returns:
        Boolean [batch, tokens] of each kind.
    """
    picture, real = ids == image_token, real.bool()
    return {
        "image": real & picture,
        "text": real & ~picture,
        "prompt": real & ~picture & ~learnt,
        "answer": real & learnt,
    }


def lengthen(batch: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """The batch with room for `count` more tokens after each row's last real one, which they follow in every way.

    Args:
        batch: with an attention mask [batch, tokens].
    """
    lengths = batch["attention_mask"].sum(1, keepdim=True)
    longer = dict(batch)
    for key in TEXT_KEYS:
        if key in batch:
            longer[key] = F.pad(batch[key], (0, count))
    # New tokens come where padding was: [batch, count]
    at = lengths + torch.arange(count, device=lengths.device)
    longer["attention_mask"] = longer["attention_mask"].scatter(1, at, 1)
    if "token_type_ids" in batch:
        longer["token_type_ids"] = longer["token_type_ids"].scatter(1, at, 1)
    if "rope_positions" in batch:
        rope = batch["rope_positions"]
        after = rope.amax((0, 2))[:, None] + 1 + torch.arange(count, device=rope.device)
        index, after = (t[None].expand(3, -1, -1) for t in (at, after))
        longer["rope_positions"] = longer["rope_positions"].scatter(2, index, after)
    return longer


def block_mask(batch: Mapping[str, Tensor], count: int, dtype: torch.dtype) -> Tensor:
    """The mask of a batch of `lengthen` in which the `count` new tokens of a row see each other: [batch, 1, q, k].

    Before them all is as in any forward: causal, but for a prefix of token type 0, which sees all of itself. As
    attention adds it: 0 where a query sees a key, very low elsewhere.
    """
    real = batch["attention_mask"]
    places = torch.arange(real.shape[1], device=real.device)
    lengths = real.sum(1)[:, None]
    blocks = [(places >= lengths - count) & (places < lengths)]
    if "token_type_ids" in batch:
        blocks.append((batch["token_type_ids"] == 0) & (places < lengths - count))
    seen = (places[:, None] >= places)[None].repeat(len(real), 1, 1)
    for block in blocks:
        seen |= block[:, :, None] & block[:, None, :]
    # Padding comes last, so that a real position sees none of it; it sees itself, lest its softmax be over nothing.
    mask = torch.zeros(seen.shape, dtype=dtype, device=real.device).masked_fill(~seen, torch.finfo(dtype).min / 2)
    return mask[:, None]
