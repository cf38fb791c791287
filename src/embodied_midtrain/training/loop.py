"""The training loop: accumulation, clipping, bf16, progress, checkpoints, and an orderly stop on a NaN."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from embodied_midtrain.artifacts import PARTS, StageError, StageRun
from embodied_midtrain.backbones.precision import Precision, autocast
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.training import checkpoint
from embodied_midtrain.training.schedule import cosine, warmup_steps

CHECKPOINTS = f"{PARTS}/checkpoints"
"""Inside an artifact; not part of the result, and removed when the result is there."""


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """What mid-training and fine-tuning set in the same way (AdamW, cosine with warm-up)."""

    steps: int = 5000
    """Updates of the weights."""
    batch: int = 256
    """Samples an update, over all micro-batches."""
    micro_batch: int = 32
    """Samples that go through the model at once; gradients are accumulated over them."""
    lr: float = 5e-5
    """Peak learning rate."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    warmup_ratio: float = 0.1
    """Share of the steps in which the learning rate rises; warmup_steps takes precedence."""
    warmup_steps: int | None = None
    """Steps in which the learning rate rises."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    precision: Precision = "auto"
    """Of the arithmetic (weights stay fp32); auto: bf16 where the processor multiplies it natively."""
    device: str = "auto"
    """Where to train; auto: the GPU if there is one."""
    seed: int = 0
    """Of the data order, new weights and augmentation."""
    save_seconds: float = 120.0
    """Least time between two checkpoints; the result does not depend on it."""

    def check(self) -> None:
        """Raise `ValueError` on settings that cannot be meant."""
        for name in ("steps", "batch", "micro_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not (self.lr > 0 and self.clip > 0):
            raise ValueError(f"lr ({self.lr}) and clip ({self.clip}) must be above 0")
        warmup_steps(self.steps, ratio=self.warmup_ratio, fixed=self.warmup_steps)


@dataclass(frozen=True)
class Loss:
    """One micro-batch's share of a step's loss; the shares of a step add up to its loss.

    `size` counts what speed is measured in: tokens or frames.
    """

    share: Tensor
    size: int


@dataclass(frozen=True)
class Trainee:
    """What is trained.

    Attributes:
        weights: the trainable parameters, by name.
        losses: the micro-batches of a step, computed one by one as they are asked for; called within autocast.
            It must depend on nothing but the step, the weights and torch's and numpy's global generators.
        describe: names a step's data, for the message when its loss is not a number.
        unit: what `Loss.size` counts.
    """

    weights: Mapping[str, nn.Parameter]
    losses: Callable[[int], Iterator[Loss]]
    describe: Callable[[int], str]
    unit: str = "samples"


def train(run: StageRun, trainee: Trainee, config: Optimisation, label: str) -> list[float]:
    """Train to `config.steps`, from the latest checkpoint where there is one; returns the loss of every step.

    The state after the last step is in a checkpoint when this returns: a run that is killed while its result is
    written does not train again. `close` removes the checkpoints after the artifact is finished.

    Raises:
        StageError: where a loss or gradient is not finite. The state before that step is kept.
    """
    config.check()
    folder = run.out / CHECKPOINTS
    optimizer = torch.optim.AdamW(
        list(trainee.weights.values()), lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.999), fused=True
    )
    torch.manual_seed(config.seed)
    np.random.seed(config.seed % 2**32)
    losses: list[float] = []
    first = 0
    if (found := checkpoint.latest(folder)) is not None:
        first, losses = checkpoint.restore(found, trainee.weights, optimizer)
    warmup = warmup_steps(config.steps, ratio=config.warmup_ratio, fixed=config.warmup_steps)
    saved = time.monotonic()
    with run.log("train.jsonl").open("a") as log, progress_bar(label, config.steps, first) as bar:
        for step in range(first, config.steps):
            started = time.monotonic()
            for group in optimizer.param_groups:
                group["lr"] = config.lr * cosine(step, config.steps, warmup)
            loss, size = _gradients(trainee, step, config)
            norm = float(nn.utils.clip_grad_norm_(list(trainee.weights.values()), config.clip))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                optimizer.zero_grad()
                kept = checkpoint.save(folder, step, trainee.weights, optimizer, losses)
                raise StageError(
                    f"{label}: the loss of step {step} is {loss} (gradient norm {norm}) on {trainee.describe(step)}. "
                    f"The state before it is kept in {kept}. Look at these samples, or lower the learning rate "
                    f"({config.lr}) and start in a new folder."
                )
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss)
            seconds = max(1e-9, time.monotonic() - started)
            bar.advance()
            bar.say(f"loss {loss:.4f}")
            record = {"step": step, "loss": loss, "lr": optimizer.param_groups[0]["lr"], "norm": norm}
            log.write(json.dumps({**record, "seconds": seconds, f"{trainee.unit}_per_second": size / seconds}) + "\n")
            if time.monotonic() - saved >= config.save_seconds and step + 1 < config.steps:
                log.flush()
                checkpoint.save(folder, step + 1, trainee.weights, optimizer, losses)
                saved = time.monotonic()
    if first < config.steps:
        checkpoint.save(folder, config.steps, trainee.weights, optimizer, losses)
    return losses


def close(out: Path) -> None:
    """Remove the checkpoints of a finished artifact."""
    checkpoint.clear(out / CHECKPOINTS)


def curve(losses: list[float]) -> str:
    """The text of an artifact's curve.json: the loss of each step."""
    return json.dumps({"step": list(range(len(losses))), "loss": losses}) + "\n"


def pick_device(name: str) -> torch.device:
    """The device that a config's `device` means."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def train_mode(module: nn.Module) -> None:
    """Training mode, but for batch norms: batches are small and their running statistics are pretrained."""
    module.train()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()


def _gradients(trainee: Trainee, step: int, config: Optimisation) -> tuple[float, int]:
    total, size = 0.0, 0
    shares = trainee.losses(step)
    while True:
        with autocast(pick_device(config.device), config.precision):
            item = next(shares, None)
        if item is None:
            return total, size
        value = float(item.share.detach())
        total, size = total + value, size + item.size
        if not math.isfinite(value):
            return total, size
        item.share.backward()
