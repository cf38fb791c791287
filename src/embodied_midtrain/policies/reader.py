"""The attention reader: control features from a frozen backbone's hidden states.

In the other modes a query token gathers what control needs while the language model learns to serve it. Inside a
frozen language model such a token cannot learn anything useful; so in frozen mode this reader takes its place:
learned queries, conditioned on the instruction's states, that cross-attend to the image tokens' states.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Reader(nn.Module):
    """[b, t, d] hidden states (image tokens, then text tokens) -> [b, queries * width].

    Args:
        hidden: d, width of the backbone's states.
        tokens: t, states kept of a frame.
        text: how many of them, at the end, are text tokens.
        width: of the reader.
        queries: learned ones.
        blocks: cross-attention and MLP, each added to what it refines.
        heads: of the attention.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        hidden: int,
        tokens: int,
        text: int,
        *,
        width: int = 256,
        queries: int = 8,
        blocks: int = 2,
        heads: int = 8,
    ) -> None:
        super().__init__()
        self.text = text
        # Language models have a few huge dimensions, and a fixed camera makes most of a token its place's mean:
        # what varies is what control needs.
        self.register_buffer("mean", torch.zeros(tokens, hidden))
        self.register_buffer("scale", torch.ones(hidden))
        self.project = nn.Linear(hidden, width)
        self.place = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.5)
        self.instruct = nn.Sequential(nn.Linear(text * hidden, width), nn.GELU(), nn.Linear(width, queries * width))
        self.blocks = nn.ModuleList(CrossBlock(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.features = queries * width

    def standardise(self, mean: Tensor, deviation: Tensor) -> None:
        """Set the statistics: mean of each place [t, d], deviation from it over all places [d]."""
        self.mean.copy_(mean)
        self.scale.copy_(1.0 / deviation.clamp_min(1e-4 * float(deviation.max())))

    def forward(self, states: Tensor) -> Tensor:
        states = (states.float() - self.mean) * self.scale
        memory = self.project(states) + self.place
        text = states[:, -self.text :].flatten(1)
        queries = self.queries + self.instruct(text).unflatten(-1, self.queries.shape)
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
