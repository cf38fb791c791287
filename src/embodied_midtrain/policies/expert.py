"""The action expert: a transformer, narrower than the language model, that attends to it in every layer (pi0).

Llama's layer (RMS norm, rotary attention, gated MLP) with a width of its own; heads are as many and as wide as the
language model's, or its keys could not be shared. pi0.5 tells it the time by adaptive RMS norms.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from embodied_midtrain.policies.prefix import Prefix, Room

PERIODS = (4e-3, 4.0)
"""Shortest and longest period of the time's embedding (pi0)."""


class Expert(nn.Module):
    """Layers and a last norm: [b, steps, width] -> [b, steps, width].

    Args:
        room: what its attention shares with what it attends to.
        mlp: width of the MLPs.
        adaptive: scale, shift and gate every norm by a condition (pi0.5), zero at first.
    """

    def __init__(self, room: Room, width: int, mlp: int, *, adaptive: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ExpertLayer(room, width, mlp, adaptive) for _ in range(room.layers))
        self.norm = TimedNorm(width, adaptive)

    def forward(self, x: Tensor, prefix: Prefix, condition: Tensor | None = None) -> Tensor:
        """`condition` [b, width] where the norms are adaptive."""
        for layer, keys, values in zip(self.layers, prefix.keys, prefix.values, strict=True):
            x = layer(x, keys, values, prefix, condition)
        normed: Tensor = self.norm(x, condition)[0]
        return normed


class ExpertLayer(nn.Module):
    """Attention over [prefix; actions], then an MLP."""

    def __init__(self, room: Room, width: int, mlp: int, adaptive: bool) -> None:
        super().__init__()
        self.room = room
        self.attention_norm, self.mlp_norm = TimedNorm(width, adaptive), TimedNorm(width, adaptive)
        self.ask = nn.Linear(width, room.heads * room.depth, bias=False)
        self.offer = nn.Linear(width, 2 * room.key_heads * room.depth, bias=False)
        self.out = nn.Linear(room.heads * room.depth, width, bias=False)
        self.inward = nn.Linear(width, 2 * mlp, bias=False)
        self.outward = nn.Linear(mlp, width, bias=False)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, prefix: Prefix, condition: Tensor | None) -> Tensor:
        normed, gate = self.attention_norm(x, condition)
        x = x + gate * self.out(self._attend(normed, keys, values, prefix))
        normed, gate = self.mlp_norm(x, condition)
        gated, plain = self.inward(normed).chunk(2, dim=-1)
        return x + gate * self.outward(F.silu(gated) * plain)

    def _attend(self, x: Tensor, keys: Tensor, values: Tensor, prefix: Prefix) -> Tensor:
        ask = self.ask(x).unflatten(-1, (-1, self.room.depth)).transpose(1, 2)
        own, offered = self.offer(x).unflatten(-1, (-1, self.room.depth)).transpose(1, 2).chunk(2, dim=1)
        if prefix.rope is not None:
            ask, own = apply_rotary_pos_emb(ask, own, *(t.to(x.dtype) for t in prefix.rope))
        mask = None
        if prefix.seen is not None:
            # The actions of a row all see each other, whatever their order.
            actions = prefix.seen.new_ones(len(x), x.shape[1])
            mask = torch.cat([prefix.seen, actions], dim=1)[:, None, None]
        found = F.scaled_dot_product_attention(
            ask,
            torch.cat([keys.to(own.dtype), own], dim=2),
            torch.cat([values.to(own.dtype), offered], dim=2),
            attn_mask=mask,
            enable_gqa=self.room.heads != self.room.key_heads,
        )
        return found.transpose(1, 2).flatten(2)


class TimedNorm(nn.Module):
    """RMS norm with a learned scale; or, adaptive, with scale, shift and gate from a condition, all zero at first."""

    def __init__(self, width: int, adaptive: bool) -> None:
        super().__init__()
        self.width = width
        self.weight = None if adaptive else nn.Parameter(torch.ones(width))
        self.modulate = nn.Linear(width, 3 * width) if adaptive else None
        if self.modulate is not None:
            nn.init.zeros_(self.modulate.weight)
            nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | float]:
        """[b, steps, width] -> the same normed, and the gate of what is made of it."""
        normed = F.rms_norm(x.float(), (self.width,), self.weight, eps=1e-6)
        if self.modulate is None:
            return normed, 1.0
        assert condition is not None, "an adaptive norm needs its condition"
        scale, shift, gate = self.modulate(condition)[:, None].chunk(3, dim=-1)
        return normed * (1 + scale) + shift, gate


def time_embedding(times: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of times in [0, 1] at `width` / 2 periods: [b] -> [b, width]."""
    shortest, longest = PERIODS
    share = torch.linspace(0, 1, width // 2, device=times.device, dtype=torch.float64)
    period = shortest * (longest / shortest) ** share
    angle = 2 * math.pi * times.double()[:, None] / period
    return torch.cat([angle.sin(), angle.cos()], dim=-1).float()
