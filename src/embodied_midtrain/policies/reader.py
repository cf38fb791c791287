"""The attention reader: control features from a frozen backbone's hidden states.

In the other modes a query token gathers what control needs while the language model learns to serve it. Inside a
frozen language model such a token cannot learn anything useful; so in frozen mode this reader takes its place:
learned queries, conditioned on the instruction's states, that cross-attend to the image tokens' states. It can be
given the vision tower's cells beside them; control then depends less on the language model, and so does a comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Sight:
    """What a reader gets of a frame, flat: states [tokens, hidden], then the vision tower's cells [cells, depth].

    `text` of the tokens, at the end, are text tokens; the others are image tokens. No cells: 0.
    """

    tokens: int
    hidden: int
    text: int
    cells: int = 0
    depth: int = 0

    def split(self, flat: Tensor) -> list[Tensor]:
        """[..., size] -> [..., tokens, hidden] and, where there are any, [..., cells, depth]."""
        at = self.tokens * self.hidden
        parts = [flat[..., :at].unflatten(-1, (self.tokens, self.hidden))]
        return [*parts, flat[..., at:].unflatten(-1, (self.cells, self.depth))] if self.cells else parts


class Memory(nn.Module):
    """States of places, standardised, projected, each with its place's own embedding: what queries attend to."""

    mean: Tensor
    scale: Tensor

    def __init__(self, places: int, width_in: int, width: int) -> None:
        super().__init__()
        # Language models have a few huge dimensions, and a fixed camera makes most of a token its place's mean:
        # what varies is what control needs.
        self.register_buffer("mean", torch.zeros(places, width_in))
        self.register_buffer("scale", torch.ones(width_in))
        self.project = nn.Linear(width_in, width)
        self.place = nn.Parameter(torch.randn(places, width) * 0.02)

    def standardise(self, mean: Tensor, variance: Tensor) -> None:
        """Set the statistics [places, width_in]: the mean of each place; deviations are taken over all places."""
        deviation = variance.mean(0).sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(1.0 / deviation.clamp_min(1e-4 * float(deviation.max())))

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """[b, places, width_in] -> the same standardised, and as memory [b, places, width]."""
        plain = (states.float() - self.mean) * self.scale
        return plain, self.project(plain) + self.place


class Reader(nn.Module):
    """What `Sight` describes [b, size] -> [b, queries * width].

    Args:
        width: of the reader.
        queries: learned ones.
        blocks: cross-attention and MLP, each added to what it refines.
        heads: of the attention.
    """

    def __init__(self, sight: Sight, *, width: int = 256, queries: int = 8, blocks: int = 2, heads: int = 8) -> None:
        super().__init__()
        self.sight = sight
        sizes = [(sight.tokens, sight.hidden), (sight.cells, sight.depth)]
        self.memories = nn.ModuleList(Memory(places, deep, width) for places, deep in sizes if places)
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.5)
        self.instruct = nn.Sequential(
            nn.Linear(sight.text * sight.hidden, width), nn.GELU(), nn.Linear(width, queries * width)
        )
        self.blocks = nn.ModuleList(CrossBlock(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.features = queries * width

    def standardise(self, mean: Tensor, variance: Tensor) -> None:
        """Set the statistics of the training data, each [size]."""
        parts = zip(self.memories, self.sight.split(mean), self.sight.split(variance), strict=True)
        for memory, means, variances in parts:
            assert isinstance(memory, Memory)
            memory.standardise(means, variances)

    def forward(self, flat: Tensor) -> Tensor:
        read = [memory(part) for memory, part in zip(self.memories, self.sight.split(flat), strict=True)]
        text = read[0][0][:, self.sight.tokens - self.sight.text :].flatten(1)
        queries = self.queries + self.instruct(text).unflatten(-1, self.queries.shape)
        memory = torch.cat([projected for _, projected in read], dim=1)
        for block in self.blocks:
            queries = block(queries, memory)
        return self.norm(queries).flatten(1)


class CrossBlock(nn.Module):
    """Queries attend to the memory and, by an MLP, think."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_norm, self.memory_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.ask = nn.Linear(width, width)
        self.offer = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """[b, q, w], [b, t, w] -> [b, q, w]"""
        ask = self._split(self.ask(self.query_norm(queries)))
        keys, values = (self._split(part) for part in self.offer(self.memory_norm(memory)).chunk(2, dim=-1))
        found = F.scaled_dot_product_attention(ask, keys, values).transpose(1, 2).flatten(2)
        queries = queries + self.out(found)
        return queries + self.mlp(self.mlp_norm(queries))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
