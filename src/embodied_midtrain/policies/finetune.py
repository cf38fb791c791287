"""`emt finetune`: a policy from a backbone and demonstrations (VLM4VLA; EmbodiedMidtrain, table 4).

Modes: "full" and "lora" train the backbone together with the head; "frozen" is for CPUs: the backbone's states of
every frame are computed once, and an attention reader is trained on them. Heads: docs/policies.md says which is for
what. The policy is the one after the last step: which checkpoint is evaluated is fixed before any evaluation.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from embodied_midtrain.artifacts import PARTS, Artifact, Skips, StageError, atomic_path, open_stage, write_atomic
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.backbones.precision import cast, pick_precision
from embodied_midtrain.episodes import ACTION_PROMPT, Robots, target_prompt
from embodied_midtrain.policies import frozen, queried
from embodied_midtrain.policies.build import build_net
from embodied_midtrain.policies.codec import ActionCodec
from embodied_midtrain.policies.encoder import shorten
from embodied_midtrain.policies.fast import FastConfig, FastTokenizer
from embodied_midtrain.policies.flow import FlowConfig
from embodied_midtrain.policies.frames import FrameStore, Goals, Wanted, collect
from embodied_midtrain.policies.heads import ArmLoss
from embodied_midtrain.policies.parallel import ParallelConfig
from embodied_midtrain.policies.policy import Policy
from embodied_midtrain.policies.prefix import Room
from embodied_midtrain.policies.preprocess import Preprocessor
from embodied_midtrain.policies.shape import Head, Mode, PolicyShape
from embodied_midtrain.robots.actions import ActionNormaliser
from embodied_midtrain.robots.opening import open_robots
from embodied_midtrain.training.loop import Optimisation, close, curve, pick_device, train


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(Optimisation):
    """How a policy is trained. The defaults of the full mode are the paper's."""

    chunk: int
    """Actions predicted at a time. No default: it belongs to the robot and its rate."""
    executed: int
    """Of these, how many a rollout executes before it looks again."""
    mode: Mode = "full"
    """What learns: full and lora train the backbone with the head, frozen only a reader of its states."""
    head: Head = "query"
    """How actions come about: a query token and two MLPs (VLM4VLA); parallel placeholders, regressed (OpenVLA-OFT);
    flow matching by an action expert (pi0); or FAST tokens as words of the language model."""
    steps: int = 16000
    """Updates of the weights."""
    warmup_steps: int | None = 500
    """Steps in which the learning rate rises; None: by warmup_ratio."""
    train: tuple[Literal["vision", "connector", "language"], ...] = ("vision", "connector", "language")
    """Parts of the backbone that full and lora train."""
    lora_rank: int = 32
    """Rank of LoRA."""
    lora_alpha: float = 64.0
    """Scale of LoRA, times its rank."""
    layers: int | None = None
    """Keep only the language model's first layers, in training and in the saved policy; None: all."""
    tasks: tuple[str, ...] = ()
    """Only demonstrations of these tasks; none given: of all."""
    episodes_per_task: int | None = None
    """Only the first demonstrations of each task."""
    stride: int = 1
    """Train on every n-th frame."""
    image: int = 224
    """Side in pixels that frames are brought to before the backbone's own preprocessing."""
    template: str = ACTION_PROMPT
    """The user text, with {instruction} in it."""
    crop: float = 1.0
    """Side of random crops in training, as a share of the frame's (VLM4VLA: 0.9); 1: none."""
    arm_loss: ArmLoss = "huber"
    """Query head: error of the arm; huber is VLM4VLA's code, squared the formula of its paper, absolute L1."""
    gripper_weight: float = 0.01
    """Query head: weight of the gripper's cross-entropy, 0.01 in VLM4VLA's code, 1 in the formula of its paper."""
    widths: tuple[int, ...] = (1024, 1024, 512, 256)
    """Query head: widths of what its branches share, then of their layers."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    fast: FastConfig = field(default_factory=FastConfig)
    layer: int = -1
    """Frozen mode: the hidden layer that is read; -1: the last, after the final norm. Only layers up to it run."""
    text_tokens: int = 4
    """Frozen mode: states kept of the prompt's last text tokens."""
    cells: bool = False
    """Frozen mode: let the reader also see the vision tower's cells, past the connector and the language model."""
    reader_width: int = 256
    """Frozen mode: width of the reader."""
    reader_queries: int = 8
    """Frozen mode: the reader's queries."""
    reader_blocks: int = 2
    """Frozen mode: the reader's cross-attention blocks."""

    def check(self) -> None:
        super().check()
        if not 1 <= self.executed <= self.chunk:
            raise ValueError(f"executed is {self.executed}; it must be from 1 to chunk ({self.chunk})")
        if self.stride < 1 or self.image < 16 or len(self.widths) < 2:
            raise ValueError("stride must be at least 1, image at least 16, and widths at least two numbers")
        if not 0.5 <= self.crop <= 1.0:
            raise ValueError(f"crop is {self.crop}; it is a share of the side from 0.5 to 1")
        if self.mode == "frozen" and self.crop < 1.0:
            raise ValueError("frozen mode computes each frame once: it cannot crop at random; set crop to 1")
        if self.mode != "frozen" and not self.train:
            raise ValueError("train names no part of the backbone; use mode frozen")
        if self.mode == "frozen" and (self.head == "fast" or self.flow.insulate):
            raise ValueError("in frozen mode the language model learns nothing, and so can say no action tokens")
        if self.mode == "frozen" and self.layers is not None:
            raise ValueError("in frozen mode, `layer` says how much of the language model runs; leave `layers` out")
        self.parallel.check()
        self.flow.check()
        if self.head == "fast" or self.flow.insulate:
            self.fast.check(self.chunk)
        target_prompt("", self.template)


def finetune(
    out: Path,
    config: FinetuneConfig,
    *,
    backbone: Backbone,
    demos: Robots,
    skips: Skips | None = None,
    cache: Path | None = None,
    overwrite: bool = False,
) -> Artifact:
    """Train a policy at `out`: the folder `policy` (`opening.load_actor` reads it) and `curve.json`.

    `backbone` is changed in place: it is the policy's afterwards.

    Args:
        skips: the list that the reader of `demos` adds to; it goes into the artifact.
        cache: a folder for what the frozen vision tower made of frames; runs that share it see them once.

    Raises:
        StageError: no usable episode, or a loss that is not a number.
        ValueError: settings that cannot be meant.
    """
    config.check()
    if demos.spec.kind == "unknown":
        raise StageError(
            f"{demos.name} does not say what its actions mean: put action_spec.json (fields of ActionSpec) beside the "
            "data; 'emt robots inspect' shows their ranges."
        )
    inputs = {"backbone": backbone.fingerprint(), "demos": demos.fingerprint()}
    with open_stage(out, "finetune", config, inputs, overwrite=overwrite) as run:
        if not run.done:
            device = pick_device(config.device)
            half = config.mode == "frozen" and pick_precision(config.precision, device) is torch.bfloat16
            cast(backbone.model, device, torch.bfloat16 if half else torch.float32)
            if config.layers is not None:
                shorten(backbone, config.layers)
            preprocessor = Preprocessor(config.image, config.template)
            kind = frozen if config.mode == "frozen" else queried
            make = kind.maker(backbone, preprocessor, config, cache)
            wanted = Wanted(config.chunk, config.stride, config.tasks, config.episodes_per_task)
            store = collect(run, demos, wanted, make, "frames")
            codec = fitted_codec(demos, store)
            shape = PolicyShape(
                mode=config.mode,
                head=config.head,
                chunk=config.chunk,
                executed=config.executed,
                camera=store.side,
                hidden=backbone.hidden,
                layer=config.layer,
                widths=config.widths,
                reader_width=config.reader_width,
                reader_queries=config.reader_queries,
                reader_blocks=config.reader_blocks,
                sight=frozen.sight_of(backbone, preprocessor, config) if config.mode == "frozen" else None,
                room=Room.of(backbone) if config.head == "flow" and config.mode != "frozen" else None,
                parallel=config.parallel,
                flow=config.flow,
                fast=config.fast,
            )
            fast = FastTokenizer.fit(Goals(codec, store, device).vectors(), config.fast) if shape.speaks else None
            torch.manual_seed(config.seed)
            net = build_net(shape, demos.spec, backbone, fast).to(device)
            policy = Policy(backbone, shape, preprocessor, codec, net)
            losses = train(run, kind.trainee(policy, store, config), config, f"finetune ({config.mode})")
            if config.mode == "lora":
                queried.merge(policy, store)
            with atomic_path(run.file("policy")) as folder:
                policy.save(folder)
            write_atomic(run.file("curve.json"), curve(losses))
            if skips is not None:
                run.skips.rows.extend(skips.rows)
            run.finish({**store.counts(), "steps": config.steps, "samples_seen": config.steps * config.batch})
        artifact = run.artifact()
    close(out)
    shutil.rmtree(out / PARTS / "frames", ignore_errors=True)
    return artifact


def fitted_codec(demos: Robots, store: FrameStore) -> ActionCodec:
    """The codec with statistics of all actions of the used episodes.

    Raises:
        StageError: where these are beyond what the data's own action spec allows.
    """
    try:
        return ActionCodec(demos.spec, ActionNormaliser.fit([store.actions])).checked()
    except ValueError as error:
        raise StageError(f"{demos.name}: {error}. 'emt robots inspect' shows the ranges.") from error


def finetune_command(
    out: Path,
    demos: Path,
    config: FinetuneConfig,
    backbone: str = "compact",
    random_language: int | None = None,
    cache: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Train a policy from a backbone and demonstrations.

    Killed, the same command goes on and ends with the same bytes.

    Examples:
        emt finetune --out runs/mine/policy --demos runs/mine/demos --backbone runs/mine/midtrained/model \\
            --mode frozen --chunk 10 --executed 5 --steps 1500 --batch 128 --micro-batch 128 --lr 1e-3 --layer 12
        emt finetune --out runs/mine/policy --demos runs/mine/demos --chunk 10 --executed 10 --mode lora
        emt finetune --out runs/mine/control --demos runs/mine/demos --chunk 10 --executed 5 --random-language 0

    Args:
        out: folder for the policy.
        demos: what `emt demos` recorded, or HDF5 files in robomimic's layout.
        config: how the policy is trained.
        backbone: "compact", a folder written by transformers or `emt midtrain` (its `model`), or a hub name.
        random_language: seed of a randomly initialised language model, as the control.
        cache: folder to keep the frozen vision tower's output in, for other runs on the same frames.
        overwrite: replace a result that was made from other inputs or settings.
    """
    skips = Skips()
    opened = open_robots(demos, skips)
    loaded = load_backbone(backbone, random_language=random_language)
    artifact = finetune(out, config, backbone=loaded, demos=opened, skips=skips, cache=cache, overwrite=overwrite)
    counts = artifact.counts
    print(f"{artifact.path}: {counts['frames']} frames of {counts['episodes']} episodes, {config.steps} steps")
    if counts["skipped"]:
        print(f"skipped: {counts['skipped']} (listed in {artifact.path / 'skipped.jsonl'})")
