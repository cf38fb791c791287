"""Whether a training fits into memory, told before it starts."""

from __future__ import annotations

from dataclasses import replace

import psutil
import torch

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.memory import GIB, MemoryEstimate, MemoryPlan, estimate_memory
from embodied_midtrain.backbones.precision import pick_precision
from embodied_midtrain.midtraining.mixture import Mixture
from embodied_midtrain.midtraining.settings import MidtrainConfig
from embodied_midtrain.training.packing import windows
from embodied_midtrain.training.team import Team

LOOKED_AT = 20
"""Steps whose fullest packed micro-batch is taken for the fullest of all."""


def estimate(backbone: Backbone, mixture: Mixture, config: MidtrainConfig, window: int | None) -> MemoryEstimate:
    """What the fullest micro-batch of the mixture takes in one process that holds all weights."""
    longest = int(mixture.lengths.max())
    if window is None:
        samples, tokens = config.micro_batch, config.micro_batch * longest
    else:
        steps = [mixture.lengths[step].tolist() for step in mixture.steps[:LOOKED_AT]]
        packed = [[lengths[n] for n in part] for lengths in steps for part in windows(lengths, window)]
        samples, tokens = max(len(part) for part in packed), max(sum(part) for part in packed)
    share = float(mixture.learnt.sum() / mixture.lengths.sum())
    eager = backbone.language.config._attn_implementation == "eager"  # type: ignore[union-attr]
    return estimate_memory(
        backbone.base.config,
        MemoryPlan(
            tokens=tokens,
            pictures=samples,
            length=longest,
            learnt=max(1, round(share * tokens)),
            method=config.method,
            rank=config.lora_rank,
            train=config.train if config.sees else tuple(part for part in config.train if part != "vision"),
            compute="bf16" if pick_precision(config.precision, backbone.device) is torch.bfloat16 else "fp32",
            checkpointing=config.gradient_checkpointing,
            attention="eager" if eager else "fused",
        ),
    )


def shared(found: MemoryEstimate, team: Team) -> MemoryEstimate:
    """The same for one process of a team; only FSDP splits what does not depend on the data."""
    if not team.sharded:
        return found
    parts = {name: getattr(found, name) // team.size for name in ("weights", "gradients", "optimiser")}
    return replace(found, **parts)


def in_this_process(found: MemoryEstimate, device: torch.device) -> MemoryEstimate:
    """With what the process holds by now; before the first step that is the weights, libraries and data.

    A GPU's memory has only the model in it.
    """
    if device.type != "cpu":
        return found
    return replace(found, process=max(0, psutil.Process().memory_info().rss - found.weights))


def there_is(device: torch.device) -> int:
    """Bytes of memory that the device has."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def refuse_too_large(found: MemoryEstimate, device: torch.device, advice: str) -> str:
    """A line that says what training takes.

    Raises:
        StageError: where that is more than the device has; with the parts of the estimate and what to change.
    """
    have = there_is(device)
    line = f"memory: about {found.total / GIB:.1f} of {have / GIB:.1f} GiB"
    if found.total > have:
        raise StageError(f"{line} would be needed, so this is not started:\n{found.table()}\n{advice}")
    return line
