"""What rows about one picture share: its vision output, and the states of all tokens up to its end.

A causal model's states of a prefix do not depend on what follows. Questions about one picture are therefore put one
after the other behind one copy of the picture's tokens, where each sees the prefix and itself only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from embodied_midtrain.backbones.backbone import IGNORED, Backbone, Rendered

LONGEST = 256
"""Tokens of a row that several questions share; attention grows with the square of it."""


@dataclass(frozen=True)
class Shared:
    """Several rows as one.

    Attributes:
        row: the prefix, and what follows it in each row, one after the other.
        prefix: tokens of the prefix.
        members: for each row its number, and where its own tokens start and end in `row`.
    """

    row: Rendered
    prefix: int
    members: tuple[tuple[int, int, int], ...]


def share_vision(backbone: Backbone, rows: Sequence[Rendered], batch_size: int) -> list[Rendered]:
    """Run the vision tower once a distinct picture, where the backbone can take its output in place of pixels."""
    if not backbone.caches_vision:
        return list(rows)
    digests = [_digest(row) for row in rows]
    first = {digest: row for digest, row in zip(reversed(digests), reversed(rows), strict=True) if digest is not None}
    wanted = sorted(first)
    seen: dict[str, Tensor] = {}
    for at in range(0, len(wanted), batch_size):
        names = wanted[at : at + batch_size]
        pixels = torch.cat([first[name].pixels["pixel_values"] for name in names])
        counts = [len(first[name].pixels["pixel_values"]) for name in names]
        seen.update(zip(names, backbone.vision({"pixel_values": pixels}).split(counts), strict=True))
    return [
        row if digest is None else replace(row, pixels={"vision": seen[digest]})
        for row, digest in zip(rows, digests, strict=True)
    ]


def _digest(row: Rendered) -> str | None:
    pixels = row.pixels.get("pixel_values")
    if pixels is None or not len(pixels):
        return None
    return hashlib.sha1(pixels.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def share_prefixes(rows: Sequence[Rendered], image_token: int) -> list[Shared]:
    """Rows of `share_vision` that begin with the same picture joined, in the order of the first of each."""
    open_groups: dict[tuple[int, tuple[int, ...]], int] = {}
    groups: list[list[int]] = []
    lengths: list[int] = []
    for number, row in enumerate(rows):
        prefix = _prefix(row, image_token)
        vision = row.pixels.get("vision")
        key = (id(vision), tuple(row.ids[:prefix]))
        place = open_groups.get(key) if vision is not None else None
        if place is not None and lengths[place] + len(row) - prefix <= LONGEST:
            groups[place].append(number)
            lengths[place] += len(row) - prefix
            continue
        open_groups[key] = len(groups)
        groups.append([number])
        lengths.append(len(row))
    return [_joined(rows, group, image_token) for group in groups]


def _prefix(row: Rendered, image_token: int) -> int:
    """Tokens up to the end of the last picture."""
    return len(row.ids) - row.ids[::-1].index(image_token) if image_token in row.ids else 0


def _joined(rows: Sequence[Rendered], group: Sequence[int], image_token: int) -> Shared:
    first = rows[group[0]]
    prefix = _prefix(first, image_token)
    ids, learnt = list(first.ids[:prefix]), list(first.learnt[:prefix])
    members = []
    for number in group:
        start = len(ids)
        ids += rows[number].ids[prefix:]
        learnt += rows[number].learnt[prefix:]
        members.append((number, start, len(ids)))
    return Shared(Rendered(ids, learnt, first.pixels), prefix, tuple(members))


def joined_states(
    backbone: Backbone, shared: Sequence[Shared], layers: Sequence[int]
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The batch of joined rows, and its hidden states [batch, tokens, hidden] of each layer."""
    batch = backbone.collate([one.row for one in shared])
    if all(len(one.members) == 1 for one in shared):
        return batch, _states(backbone, batch, layers)
    rows, tokens = batch["input_ids"].shape
    # Of which member a token is: 0 for the prefix, which all see; -1 for padding, which only itself sees.
    owner = torch.full((rows, tokens), -1)
    places = torch.zeros((rows, tokens), dtype=torch.long)
    for n, one in enumerate(shared):
        owner[n, : one.prefix] = 0
        places[n, : one.prefix] = torch.arange(one.prefix)
        for member, (_, start, end) in enumerate(one.members, 1):
            owner[n, start:end] = member
            places[n, start:end] = torch.arange(one.prefix, one.prefix + end - start)
    sees = (owner[:, :, None] == owner[:, None, :]) | ((owner[:, None, :] == 0) & (owner[:, :, None] >= 0))
    sees &= torch.ones(tokens, tokens, dtype=torch.bool).tril()
    dtype = backbone.base.get_input_embeddings().weight.dtype
    mask = torch.zeros((rows, 1, tokens, tokens), dtype=dtype).masked_fill_(~sees[:, None], torch.finfo(dtype).min)
    return batch, _states(backbone, {**batch, "attention_mask": mask, "position_ids": places}, layers)


def _states(backbone: Backbone, batch: Mapping[str, Tensor], layers: Sequence[int]) -> list[Tensor]:
    if len(layers) == 1:
        return [backbone.states(batch, layer=layers[0])]
    # -1 stands for the last, which is beyond any other.
    states = backbone.layer_states(batch, -1 if -1 in layers else max(layers))
    return [states[layer] for layer in layers]


def apart(
    shared: Sequence[Shared], batch: Mapping[str, Tensor], states: Tensor
) -> Iterator[tuple[list[int], Tensor, Tensor, Tensor, Tensor]]:
    """Numbers of the rows, states [rows, tokens, hidden], token ids, which are real, which learnt: as if alone."""
    for n, one in enumerate(shared):
        longest = one.prefix + max(end - start for _, start, end in one.members)
        index = torch.zeros((len(one.members), longest), dtype=torch.long)
        real = torch.zeros((len(one.members), longest), dtype=torch.long)
        for row, (_, start, end) in enumerate(one.members):
            own = torch.cat([torch.arange(one.prefix), torch.arange(start, end)])
            index[row, : len(own)] = own
            real[row, : len(own)] = 1
        own_ids, learnt = batch["input_ids"][n][index], (batch["labels"][n] != IGNORED)[index] & real.bool()
        yield [number for number, _, _ in one.members], states[n][index.to(states.device)], own_ids, real, learnt
