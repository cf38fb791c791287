"""pi0's head: flow matching by an action expert that attends to the language model in every layer.

Sign and direction, as pi0 (arXiv 2410.24164) has them: t = 1 is noise, t = 0 the actions. Noise e ~ N(0, 1) and actions
a make x_t = t e + (1 - t) a; the expert is to say u = dx/dt = e - a (mean squared error). Times are drawn as
t = 0.999 Beta(1.5, 1) + 0.001, more of them near the noise. Actions come about by Euler steps from t = 1 to t = 0:
x <- x - v(x, t) / n. Some code bases have it the other way round; policies saved here never do.

Knowledge insulation (arXiv 2505.23705) lets no gradient of the flow into the language model: the expert attends to
[stopgrad(K_vlm); K_act] and the same of the values. The language model learns what actions are by predicting FAST
tokens of the same chunk instead: loss = CE + alpha * flow. The tokens stand behind the prompt, where the expert does
not see them, nor they it.

An expert can also attend to a reader's queries (frozen mode): their keys and values are then projections of its own.
There is no proprioceptive state here; it would be a block of its own between prompt and actions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.policies.expert import Expert, time_embedding
from embodied_midtrain.policies.heads import Answer, Goal, as_answer
from embodied_midtrain.policies.net import Net
from embodied_midtrain.policies.prefix import Prefix, Room, read_prefix

if TYPE_CHECKING:
    from embodied_midtrain.policies.settings import FinetuneConfig
    from embodied_midtrain.policies.shape import PolicyShape
    from embodied_midtrain.policies.tokens import ActionTokens


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Flow matching."""

    expert_width: int | None = None
    """Width of the expert; None: half of the backbone's, as pi0's is (frozen mode: the reader's)."""
    expert_mlp: int | None = None
    """Width of its MLPs; None: four times its own."""
    expert_layers: int = 4
    """Frozen mode: layers of the expert. In the other modes it has the language model's."""
    expert_time: Literal["concatenated", "adaptive"] = "concatenated"
    """How the expert is told the time: with each action, by an MLP (pi0); or by adaptive norms (pi0.5)."""
    euler_steps: int = 10
    """Steps from noise to actions."""
    insulate: bool = False
    """Knowledge insulation: the language model learns from FAST tokens, never from the flow."""
    flow_weight: float = 1.0
    """Insulated: weight of the flow beside the cross-entropy of the tokens (alpha)."""

    def check(self) -> None:
        """Raise `ValueError` on settings that cannot be meant."""
        if (self.expert_width or 2) % 2:
            raise ValueError(f"expert_width is {self.expert_width}; sines and cosines of the time want an even one")
        if self.euler_steps < 1 or self.expert_layers < 1 or self.flow_weight <= 0:
            raise ValueError("euler_steps and expert_layers must be at least 1, flow_weight above 0")


class FlowHead(nn.Module):
    """The velocity field, its loss and its integration, whatever the expert attends to.

    Args:
        width: of the expert.
        ordered: give each step an embedding of its own, where the prefix brings no positions.
    """

    def __init__(self, shape: PolicyShape, spec: ActionSpec, room: Room, width: int, *, ordered: bool) -> None:
        super().__init__()
        settings = shape.flow
        self.size = (shape.chunk, spec.width)
        self.steps = settings.euler_steps
        self.width = width
        self.adaptive = settings.expert_time == "adaptive"
        self.inward = nn.Linear(spec.width, width)
        self.time_in = nn.Linear(width if self.adaptive else 2 * width, width)
        self.time_out = nn.Linear(width, width)
        self.order = nn.Parameter(0.02 * torch.randn(shape.chunk, width)) if ordered else None
        self.expert = Expert(room, width, settings.expert_mlp or 4 * width, adaptive=self.adaptive)
        self.outward = nn.Linear(width, spec.width)

    def forward(self, x: Tensor, times: Tensor, prefix: Prefix) -> Tensor:
        """Velocities of x [b, chunk, width] at times [b]."""
        actions = self.inward(x)
        time = time_embedding(times, self.width).to(actions.dtype)
        condition = None
        if self.adaptive:
            condition = F.silu(self.time_out(F.silu(self.time_in(time))))
        else:
            both = torch.cat([actions, time[:, None].expand_as(actions)], dim=-1)
            actions = self.time_out(F.silu(self.time_in(both)))
        if self.order is not None:
            actions = actions + self.order
        velocities: Tensor = self.outward(self.expert(actions, prefix, condition))
        return velocities

    def loss(self, actions: Tensor, prefix: Prefix) -> Tensor:
        """Of actions [b, chunk, width], at times and with noise from torch's global generator."""
        times = draw_times(len(actions), actions.device)
        noise = torch.randn_like(actions)
        at = times[:, None, None]
        said = self(at * noise + (1 - at) * actions, times, prefix)
        return F.mse_loss(said.float(), noise - actions)

    def sample(self, noise: Tensor, prefix: Prefix) -> Tensor:
        """Actions [b, chunk, width] from noise of that shape."""
        x = noise
        for step in range(self.steps):
            times = x.new_full((len(x),), 1 - step / self.steps)
            x = x - self(x, times, prefix).float() / self.steps
        return x


class FlowNet(Net):
    """The expert beside the language model; with knowledge insulation, action tokens for the latter to learn."""

    def __init__(self, shape: PolicyShape, spec: ActionSpec, tokens: ActionTokens | None) -> None:
        super().__init__()
        assert shape.room is not None and (tokens is not None) == shape.flow.insulate
        self.gripper = spec.gripper is not None
        self.tokens = tokens
        width = shape.flow.expert_width or shape.hidden // 4 * 2
        self.head = FlowHead(shape, spec, shape.room, width, ordered=False)
        self.sampling_seed = 0

    def answer(self, backbone: Backbone, rows: Sequence[Rendered]) -> Answer:
        prefix, _ = read_prefix(backbone, backbone.collate(rows), self.head.size[0])
        noise = noise_for(rows, self.head.size, self.sampling_seed).to(backbone.device)
        return as_answer(self.head.sample(noise, prefix), self.gripper)

    def loss(self, backbone: Backbone, rows: Sequence[Rendered], goal: Goal, config: FinetuneConfig) -> Tensor:
        steps = self.head.size[0]
        if self.tokens is None:
            return self.head.loss(goal.vector, read_prefix(backbone, backbone.collate(rows), steps)[0])
        batch = backbone.collate(self.tokens.answered(rows, goal))
        lengths = torch.tensor([len(row) for row in rows])
        prefix, states = read_prefix(backbone, batch, steps, lengths)
        spoken = self.tokens.loss(backbone, batch, states)
        return spoken + config.flow.flow_weight * self.head.loss(goal.vector, prefix.detached())

    def save(self, folder: Path) -> None:
        if self.tokens is not None:
            self.tokens.fast.save(folder)


class MemoryPrefix(nn.Module):
    """A reader's queries [b, queries, width] as keys and values for each layer of an expert."""

    def __init__(self, width: int, room: Room) -> None:
        super().__init__()
        self.depth = room.depth
        self.offers = nn.ModuleList(nn.Linear(width, 2 * room.key_heads * room.depth) for _ in range(room.layers))

    def forward(self, memory: Tensor) -> Prefix:
        offered = [offer(memory).unflatten(-1, (-1, self.depth)).transpose(1, 2) for offer in self.offers]
        pairs = [both.chunk(2, dim=1) for both in offered]
        return Prefix([keys for keys, _ in pairs], [values for _, values in pairs])


def draw_times(count: int, device: torch.device) -> Tensor:
    """0.999 Beta(1.5, 1) + 0.001, from torch's global generator: [count].

    Beta(a, 1) has the distribution function t^a, so that a uniform number to the power 1/a is a draw of it.
    """
    return torch.rand(count, device=device) ** (1 / 1.5) * 0.999 + 0.001


def noise_for(rows: Sequence[Rendered], size: tuple[int, int], seed: int) -> Tensor:
    """The noise that a row's actions begin from [b, *size]: the same for the same row, whatever stands beside it."""
    drawn = []
    for row in rows:
        digest = hashlib.sha256(repr((seed, row.ids)).encode())
        for name in sorted(row.pixels):
            digest.update(row.pixels[name].detach().float().cpu().contiguous().numpy().tobytes())
        generator = torch.Generator().manual_seed(int.from_bytes(digest.digest()[:7], "big"))
        drawn.append(torch.randn(size, generator=generator))
    return torch.stack(drawn)
