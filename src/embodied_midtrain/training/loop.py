"""The training loop: accumulation, clipping, bf16, progress, checkpoints, and an orderly stop on a NaN."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn

from embodied_midtrain.allocation import all_blocks_kept
from embodied_midtrain.artifacts import PARTS, StageError, StageRun
from embodied_midtrain.backbones.precision import Precision, autocast
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.training import checkpoint
from embodied_midtrain.training.anchor import Anchor
from embodied_midtrain.training.averages import Averages
from embodied_midtrain.training.memory import advising
from embodied_midtrain.training.schedule import cosine, warmup_steps
from embodied_midtrain.training.speed import Speed
from embodied_midtrain.training.team import ALONE, Team, whole
from embodied_midtrain.training.tracking import Tracker

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
    lr_floor: float = 0.0
    """Share of it that the cosine falls to."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay of the running means of gradients and of their squares."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    anchor: float = 0.0
    """Decoupled decay of a pretrained model's weights towards where they started, in place of towards 0 (L2-SP): what
    keeps it near its base; 0: none."""
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
    ema: float | None = None
    """Decay (such as 0.999) of a running average of the weights, which is then the result; None: the last weights."""
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
        if not (0 <= self.lr_floor <= 1 and all(0 <= beta < 1 for beta in self.betas)):
            raise ValueError(f"lr_floor ({self.lr_floor}) is a share, and betas {self.betas} are from 0 to below 1")
        if not 0 <= self.anchor * self.lr < 1:
            raise ValueError(f"anchor is {self.anchor}; it must be from 0 to below 1 / lr")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema is {self.ema}; it is a decay between 0 and 1, such as 0.999")
        warmup_steps(self.steps, ratio=self.warmup_ratio, fixed=self.warmup_steps)


@dataclass(frozen=True)
class Loss:
    """One micro-batch's share of a step's loss; the shares of a step, over all processes, add up to its loss.

    `size` counts what speed is measured in: tokens or frames. `operations` of `training.operations`, `what` (names of
    its data, for the message where it is not a number) and `part` (which of several objectives it belongs to: the
    log tells them apart) may be left out.
    """

    share: Tensor
    size: int
    operations: float = 0.0
    what: str = ""
    part: str = ""


@dataclass(frozen=True)
class Trainee:
    """What is trained.

    Attributes:
        weights: the trainable parameters, by name.
        losses: the micro-batches of a step, computed one by one as they are asked for; called within autocast.
            It must depend on nothing but the step, the weights and torch's and numpy's global generators. In a team it
            gives this process's share, as many micro-batches as in every other process.
        describe: names a step's data, for the message when its loss is not a number.
        unit: what `Loss.size` counts.
        waited: seconds that `losses` has waited for data so far.
        advice: what to change where memory runs out.
        rates: learning rates of some weights, as multiples of the config's.
        fresh: names of weights that start at random: they are not held to that.
        close: ends what makes data ready, however the training ends.
    """

    weights: Mapping[str, nn.Parameter]
    losses: Callable[[int], Iterator[Loss]]
    describe: Callable[[int], str]
    unit: str = "samples"
    waited: Callable[[], float] = lambda: 0.0
    advice: str = "Lower micro_batch; the result stays the same."
    rates: Mapping[str, float] = field(default_factory=dict)
    fresh: Collection[str] = ()
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Work:
    """What one step came to, over all processes."""

    loss: float
    size: float
    operations: float
    due: bool
    """Whether the first process wants a checkpoint after it."""
    parts: Mapping[str, float]
    """What each objective adds to the loss, where there are several."""
    bad: str = ""
    """The micro-batch of this process whose loss is not finite."""


def train(
    run: StageRun,
    trainee: Trainee,
    config: Optimisation,
    label: str,
    *,
    team: Team = ALONE,
    tracker: Tracker | None = None,
    peak: float | None = None,
    after: Mapping[int, Callable[[], None]] | None = None,
) -> list[float]:
    """Train to `config.steps`, from the latest checkpoint where there is one; returns the loss of every step.

    The state after the last step is in a checkpoint when this returns: a run that is killed while its result is
    written does not train again. `close` removes the checkpoints after the artifact is finished. With `config.ema` the
    weights are the averaged ones when this returns.

    Args:
        team: the processes that train together; all of them call this.
        peak: operations a second of this device (`training.peak`), for model-flops use.
        after: what to do when so many steps are done, with the weights that the result would have then; perhaps again
            after a kill.

    Raises:
        StageError: where a loss or gradient is not finite, or memory runs out. The state before that step is kept.
    """
    config.check()
    folder = run.out / CHECKPOINTS
    weights = list(trainee.weights.values())
    optimizer = torch.optim.AdamW(
        _groups(trainee), lr=config.lr, weight_decay=config.weight_decay, betas=config.betas, fused=True
    )
    averages = Averages(trainee.weights, config.ema) if config.ema is not None else None
    state = checkpoint.Trained(trainee.weights, optimizer, averages)
    torch.manual_seed(config.seed + 10_007 * team.rank)
    np.random.seed((config.seed + 10_007 * team.rank) % 2**32)
    # Before a checkpoint is put back: a resumed run, too, starts from the base.
    anchor = Anchor({n: p for n, p in trainee.weights.items() if n not in trainee.fresh}, config.anchor)
    losses: list[float] = []
    first = 0
    if (found := checkpoint.latest(folder)) is not None:
        first, losses = checkpoint.restore(found, state, team)
    warmup = warmup_steps(config.steps, ratio=config.warmup_ratio, fixed=config.warmup_steps)
    saved = time.monotonic()
    speed = Speed(trainee.unit, None if peak is None else peak * team.size)
    with (
        contextlib.closing(trainee),
        _journal(run, team) as log,
        progress_bar(label, config.steps, first, shown=team.first) as bar,
        advising(trainee.advice),
        all_blocks_kept() if weights[0].device.type == "cpu" else contextlib.nullcontext(_nothing) as step_ended,
    ):
        for step in range(first, config.steps):
            started, waited = time.perf_counter(), trainee.waited()
            rate = config.lr * cosine(step, config.steps, warmup, config.lr_floor)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["rate"]
            work = _gradients(trainee, step, config, team, due=time.monotonic() - saved >= config.save_seconds)
            norm = float(whole(nn.utils.clip_grad_norm_(weights, config.clip)))
            if not (math.isfinite(work.loss) and math.isfinite(norm)):
                optimizer.zero_grad()
                kept = checkpoint.save(folder, step, state, losses, team)
                bad = next((said for said in team.all_say(work.bad) if said), "") or trainee.describe(step)
                raise StageError(
                    f"{label}: the loss of step {step} is {work.loss} (gradient norm {norm}) on {bad}. "
                    f"The state before it is kept in {kept}. Look at these samples, or lower the learning rate "
                    f"({config.lr}) and start in a new folder."
                )
            optimizer.step()
            optimizer.zero_grad()
            step_ended()
            anchor.pull(rate)
            if averages is not None:
                averages.update(trainee.weights, step)
            losses.append(work.loss)
            if after is not None and step + 1 in after:
                with averages.in_place_of(trainee.weights) if averages is not None else contextlib.nullcontext():
                    after[step + 1]()
            record = {"step": step, "loss": work.loss, "lr": rate, "norm": norm}
            record |= {f"loss_{part}": value for part, value in work.parts.items()}
            record |= speed.of(work.size, work.operations, time.perf_counter() - started, trainee.waited() - waited)
            bar.advance()
            bar.say(f"loss {work.loss:.4f}  {speed}")
            if log is not None:
                log.write(json.dumps(record) + "\n")
            if tracker is not None:
                tracker.log({name: value for name, value in record.items() if name != "step"}, step)
            if work.due and step + 1 < config.steps:
                if log is not None:
                    log.flush()
                checkpoint.save(folder, step + 1, state, losses, team)
                saved = time.monotonic()
    if first < config.steps:
        checkpoint.save(folder, config.steps, state, losses, team)
    if averages is not None:
        averages.put_into(trainee.weights)
    return losses


def _nothing() -> None:
    """What a device's own allocator needs after a step."""


def _groups(trainee: Trainee) -> list[dict[str, Any]]:
    """AdamW's groups: weights of one learning rate together."""
    rates = {name: trainee.rates.get(name, 1.0) for name in trainee.weights}
    return [
        {"params": [p for name, p in trainee.weights.items() if rates[name] == rate], "rate": rate}
        for rate in sorted(set(rates.values()))
    ]


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


@contextlib.contextmanager
def _journal(run: StageRun, team: Team) -> Iterator[IO[str] | None]:
    if not team.first:
        yield None
        return
    with run.log("train.jsonl").open("a") as log:
        yield log


def _gradients(trainee: Trainee, step: int, config: Optimisation, team: Team, due: bool) -> Work:
    size, operations = 0, 0.0
    losses: list[Tensor] = []
    names: list[str] = []
    parts: list[str] = []
    shares = trainee.losses(step)
    while True:
        with autocast(pick_device(config.device), config.precision):
            item = next(shares, None)
        if item is None:
            break
        size, operations = size + item.size, operations + item.operations
        losses.append(item.share.detach())
        names.append(item.what)
        parts.append(item.part)
        # What a team's processes find is averaged, and a step is the sum of their shares.
        (item.share * team.size if team.size > 1 else item.share).backward()
    # Looked at once a step: a GPU would stand still for every look.
    values = torch.stack(losses).tolist()
    bad = next((name for value, name in zip(values, names, strict=True) if not math.isfinite(value)), "")
    adds = dict.fromkeys(parts, 0.0)
    for part, value in zip(parts, values, strict=True):
        adds[part] += value
    told = [sum(values), size, operations, float(due and team.first), *adds.values()]
    loss, total, operations, wanted, *each = team.total(told)
    return Work(loss, total, operations, wanted > 0, dict(zip(adds, each, strict=True)) if len(adds) > 1 else {}, bad)
