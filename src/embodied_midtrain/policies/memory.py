"""What fine-tuning a policy together with its backbone takes of memory, told before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.backbones.memory import MemoryEstimate, MemoryPlan, estimate_memory
from embodied_midtrain.backbones.precision import pick_precision
from embodied_midtrain.midtraining.mixture import Mixture
from embodied_midtrain.policies.policy import Policy

if TYPE_CHECKING:
    from embodied_midtrain.policies.settings import FinetuneConfig

ADVICE = (
    "Lower micro_batch (the result stays the same), use mode lora, train fewer parts (such as --train language), keep "
    "fewer layers, or use mode frozen."
)


def estimate(
    policy: Policy, rows: Sequence[Rendered], config: FinetuneConfig, samples: Mixture | None = None
) -> MemoryEstimate:
    """What the larger takes: a micro-batch of frames, or one of the image-text samples beside them.

    Of the head its weights and what belongs to them; what it keeps for the backward pass is not counted.

    Args:
        rows: some rendered frames.
        samples: the image-text samples.
    """
    shape, spec = policy.shape, policy.codec.spec
    # Placeholders of a parallel head, or FAST's tokens, which are fewer.
    acted = shape.chunk * spec.width if config.head == "parallel" or shape.speaks else 1
    spoken = acted if shape.speaks else 1
    frames = _of(policy.backbone, config, config.micro_batch, max(map(len, rows)) + acted, spoken * config.micro_batch)
    found = frames
    if samples is not None:
        size = min(config.micro_batch, config.joint.samples(config.batch))
        beside = _of(
            policy.backbone, config, size, int(samples.lengths.max()), size * int(samples.learnt.mean().round())
        )
        found = max(frames, beside, key=lambda one: one.total)
    head = 4 * sum(p.numel() for p in policy.net.parameters())
    return replace(
        found, weights=found.weights + head, gradients=found.gradients + head, optimiser=found.optimiser + 2 * head
    )


def _of(backbone: Backbone, config: FinetuneConfig, rows: int, length: int, learnt: int) -> MemoryEstimate:
    eager = backbone.language.config._attn_implementation == "eager"  # type: ignore[union-attr]
    return estimate_memory(
        backbone.base.config,
        MemoryPlan(
            tokens=rows * length,
            pictures=rows,
            length=length,
            learnt=learnt,
            method="lora" if config.mode == "lora" else "full",
            rank=config.lora_rank,
            train=config.train,
            compute="bf16" if pick_precision(config.precision, backbone.device) is torch.bfloat16 else "fp32",
            attention="eager" if eager else "fused",
        ),
    )
