"""Nets of every head on tiny backbones."""

import torch

from embodied_midtrain.policies.build import build_net
from embodied_midtrain.policies.fast import FastConfig, FastTokenizer
from embodied_midtrain.policies.finetune import FinetuneConfig
from embodied_midtrain.policies.heads import Goal
from embodied_midtrain.policies.prefix import Room
from embodied_midtrain.policies.preprocess import Preprocessor
from embodied_midtrain.policies.shape import PolicyShape
from tests.tiny import SPEC, Dots, backbone

CHUNK = 3
FAST = FastConfig(fast_vocabulary=60)


def config(**settings):
    return FinetuneConfig(chunk=CHUNK, executed=2, **settings)


def made(head, kind="compact", seed=0, **settings):
    """A backbone, the net of a head on it, and its config."""
    model = backbone(kind)
    wanted = config(head=head, fast=FAST, **settings)
    shape = PolicyShape(
        mode="full",
        head=head,
        chunk=CHUNK,
        executed=2,
        camera=32,
        hidden=model.hidden,
        layer=-1,
        widths=(32, 16),
        reader_width=16,
        reader_queries=2,
        reader_blocks=1,
        sight=None,
        room=Room.of(model),
        parallel=wanted.parallel,
        flow=wanted.flow,
        fast=wanted.fast,
    )
    torch.manual_seed(seed)
    fast = FastTokenizer.fit(goal(64).vector.numpy(), FAST) if shape.speaks else None
    return model, build_net(shape, SPEC, model, fast), wanted


def goal(count=3, seed=1):
    """Smooth random chunks."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.rand(count, 2, 2, generator=generator) * 2 - 1
    share = torch.linspace(0, 1, CHUNK)[None, :, None]
    arm = ends[:, :1] * share + ends[:, 1:] * (1 - share)
    closed = (torch.rand(count, generator=generator) > 0.5).float()[:, None].expand(-1, CHUNK).contiguous()
    return Goal(arm, closed)


def rows(model, texts=("go left", "turn around slowly", "go right")):
    return Preprocessor(32).render(model, Dots().episodes[0].frames[: len(texts)], list(texts))
