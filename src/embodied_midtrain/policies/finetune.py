"""`emt finetune`: a policy from a backbone and demonstrations (VLM4VLA; EmbodiedMidtrain, table 4).

Modes: "full" and "lora" train the backbone together with the head; "frozen" is for CPUs: the backbone's states of
every frame are computed once, and an attention reader is trained on them. Heads: docs/policies.md says which is for
what. The policy is the one after the last step: which checkpoint is evaluated is fixed before any evaluation.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from embodied_midtrain.artifacts import PARTS, Artifact, Skips, StageError, atomic_path, open_stage, write_atomic
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.opening import COMPACT, load_backbone
from embodied_midtrain.backbones.precision import cast, pick_precision
from embodied_midtrain.episodes import Robots
from embodied_midtrain.midtraining.kept import FOLDER
from embodied_midtrain.policies import frozen, queried
from embodied_midtrain.policies.build import build_net
from embodied_midtrain.policies.codec import ActionCodec
from embodied_midtrain.policies.encoder import shorten
from embodied_midtrain.policies.fast import FastTokenizer
from embodied_midtrain.policies.flow import FlowNet
from embodied_midtrain.policies.frames import FrameStore, Goals, Wanted, collect
from embodied_midtrain.policies.joint import ImageText
from embodied_midtrain.policies.opening import open_policy
from embodied_midtrain.policies.policy import Policy
from embodied_midtrain.policies.prefix import Room
from embodied_midtrain.policies.preprocess import Preprocessor
from embodied_midtrain.policies.settings import FinetuneConfig
from embodied_midtrain.policies.shape import PolicyShape
from embodied_midtrain.policies.start import check_start, take_over
from embodied_midtrain.policies.tokens import FastNet
from embodied_midtrain.robots.actions import ActionNormaliser
from embodied_midtrain.robots.opening import open_robots
from embodied_midtrain.training.loop import close, curve, pick_device, train

__all__ = ["FinetuneConfig", "finetune", "finetune_command"]


def finetune(
    out: Path,
    config: FinetuneConfig,
    *,
    backbone: Backbone,
    demos: Robots,
    skips: Skips | None = None,
    cache: Path | None = None,
    start: Policy | None = None,
    vqa: ImageText | None = None,
    overwrite: bool = False,
) -> Artifact:
    """Train a policy at `out`: the folder `policy` (`opening.open_policy` reads it) and `curve.json`, and
    one folder more for each of `config.milestones`.

    `backbone` is changed in place: it is the policy's afterwards. Robot-data pretraining is this on other robot data,
    alone or jointly with image-text samples, and then this again from its policy.

    Args:
        start: a policy to go on from, whose backbone is given as `backbone`.
        vqa: image-text samples to train on beside the frames, as `config.joint` says.
        skips: the list that the reader of `demos` adds to; it goes into the artifact.
        cache: a folder for what the frozen vision tower made of frames; runs that share it see them once.

    Raises:
        StageError: no usable episode, a start that cannot go on, or a loss that is not a number.
        ValueError: settings that cannot be meant.
    """
    config.check()
    if start is not None:
        check_start(start, config.start, demos)
    if vqa is not None:
        if config.mode == "frozen":
            raise ValueError("in frozen mode the language model learns nothing: leave the image-text samples out")
        config.joint.samples(config.batch)
    if demos.spec.kind == "unknown":
        raise StageError(
            f"{demos.name} does not say what its actions mean: put action_spec.json (fields of ActionSpec) beside the "
            "data; 'emt robots inspect' shows their ranges."
        )
    inputs: dict[str, Artifact | str] = {
        "backbone": backbone.fingerprint(),
        "demos": demos.fingerprint(),
        **({"start": start.identity} if start is not None else {}),
        **(vqa.inputs() if vqa is not None else {}),
    }
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
            keeps = start is not None and config.start.start_statistics == "kept"
            codec = start.codec if start is not None and keeps else fitted_codec(demos, store)
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
            head = start if config.start.start_head == "kept" else None
            fast = None
            if shape.speaks:
                known = head.net.tokens if head is not None and isinstance(head.net, (FastNet, FlowNet)) else None
                fast = known.fast if known else FastTokenizer.fit(Goals(codec, store, device).vectors(), config.fast)
            torch.manual_seed(config.seed)
            net = build_net(shape, demos.spec, backbone, fast).to(device)
            if head is not None:
                take_over(head, shape, net)
            policy = Policy(backbone, shape, preprocessor, codec, net)
            joint = None if vqa is None else queried.beside(run, backbone, vqa, config)
            if config.mode == "frozen":
                trainee = frozen.trainee(policy, store, config)
            else:
                trainee = queried.trainee(run, policy, store, config, joint)
            whole = partial(queried.merged, policy, store) if config.mode == "lora" else lambda: policy
            after = {step: partial(_keep, whole, run.file(f"milestones/{step}")) for step in config.milestones}
            losses = train(run, trainee, config, f"finetune ({config.mode})", after=after)
            if config.mode == "lora":
                queried.merge(policy, store)
            with atomic_path(run.file("policy")) as folder:
                policy.save(folder)
            write_atomic(run.file("curve.json"), curve(losses))
            if skips is not None:
                run.skips.rows.extend(skips.rows)
            seen = {"steps": config.steps, "samples_seen": config.steps * config.batch}
            run.finish({**store.counts(), **seen, **(joint.counts() if joint is not None else {})})
        artifact = run.artifact()
    close(out)
    for folder in (out / PARTS / "frames", out / FOLDER):
        shutil.rmtree(folder, ignore_errors=True)
    return artifact


def _keep(whole: Callable[[], Policy], place: Path) -> None:
    """Save what the policy is now, in the middle of its training."""
    with atomic_path(place) as folder:
        whole().save(folder)


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
    init_policy: Path | None = None,
    vqa_pool: str | None = None,
    vqa_selection: Path | None = None,
    vqa_images: Path | None = None,
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
        emt finetune --out runs/mine/pretrained --demos data/other-robots --chunk 10 --executed 5 --head flow \\
            --vqa-pool runs/mine/pool --vqa-selection runs/mine/selected --vqa-ratio 0.25 --vqa-weight 0.1
        emt finetune --out runs/mine/policy --demos runs/mine/demos --chunk 10 --executed 5 --head flow \\
            --init-policy runs/mine/pretrained

    Args:
        out: folder for the policy.
        demos: what `emt demos` recorded, or HDF5 files in robomimic's layout.
        config: how the policy is trained.
        backbone: "compact", a folder written by transformers or `emt midtrain` (its `model`), or a hub name.
        random_language: seed of a randomly initialised language model, as the control.
        init_policy: a policy to go on from, in place of `backbone`: robot-data pretraining, then the target task.
        vqa_pool: image-text samples to train on beside the frames: a pool, or files.
        vqa_selection: what `emt select` chose of them; by default all.
        vqa_images: folder that image paths in a conversation file start from.
        cache: folder to keep the frozen vision tower's output in, for other runs on the same frames.
        overwrite: replace a result that was made from other inputs or settings.
    """
    skips = Skips()
    opened = open_robots(demos, skips)
    start = None if init_policy is None else open_policy(init_policy)
    if start is not None and (random_language is not None or backbone != COMPACT):
        raise ValueError("--init-policy brings its own backbone: leave --backbone and --random-language out")
    loaded = start.backbone if start is not None else load_backbone(backbone, random_language=random_language)
    if vqa_pool is None and (vqa_selection is not None or vqa_images is not None):
        raise ValueError("--vqa-selection and --vqa-images say what to take of --vqa-pool: give it too")
    vqa = None if vqa_pool is None else ImageText(vqa_pool, Artifact.given(vqa_selection, "select"), vqa_images)
    artifact = finetune(
        out,
        config,
        backbone=loaded,
        demos=opened,
        skips=skips,
        cache=cache,
        start=start,
        vqa=vqa,
        overwrite=overwrite,
    )
    counts = artifact.counts
    print(f"{artifact.path}: {counts['frames']} frames of {counts['episodes']} episodes, {config.steps} steps")
    if vqa is not None:
        print(f"{counts['vqa_seen']} image-text samples, {counts['vqa_ratio']:g} for each frame")
    if counts["skipped"]:
        print(f"skipped: {counts['skipped']} (listed in {artifact.path / 'skipped.jsonl'})")
