"""`emt midtrain`: adapt a backbone to a selection by next-token prediction (EmbodiedMidtrain, table 3)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from embodied_midtrain.artifacts import Artifact, Skips, atomic_path, to_plain, write_atomic
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.midtraining.kept import FOLDER
from embodied_midtrain.midtraining.mixture import Budget, Key, Mixture, prepare
from embodied_midtrain.midtraining.settings import MidtrainConfig
from embodied_midtrain.midtraining.teach import teach
from embodied_midtrain.proximity.select import read_selection
from embodied_midtrain.samples import Sample
from embodied_midtrain.sources.opening import open_pool, read_samples
from embodied_midtrain.training.loop import close, curve, pick_device
from embodied_midtrain.training.team import join_team
from embodied_midtrain.training.tracking import AccelerateTracker, TrackerName

__all__ = ["MidtrainConfig", "midtrain", "midtrain_command"]


def midtrain(
    out: Path,
    config: MidtrainConfig,
    *,
    backbone: Backbone,
    pool: Path | str,
    selection: Artifact | None = None,
    images: Path | None = None,
    overwrite: bool = False,
    tracker: TrackerName | None = None,
) -> Artifact:
    """Train `backbone` (changed in place) on a selection of `pool`, by this process or the team it was launched in.

    The artifact holds `model`, a plain transformers checkpoint that `load_backbone` opens, and `curve.json`. Its
    counts say how often each source was drawn against what was meant, and how many draws were repeats.

    Args:
        selection: an 'emt select' artifact; None: the whole pool.
        images: folder that image paths in a conversation file start from.
        tracker: also log there; the result does not depend on it.

    Raises:
        StageError: no usable sample, a sample that is not in the pool, a loss that is not a number, or out of memory.
        ValueError: settings that cannot be meant.
    """
    config.check()
    team = join_team(config.device)
    if config.batch < team.size:
        raise ValueError(f"batch ({config.batch}) must be at least the number of processes ({team.size})")
    reader = Skips()
    source = open_pool(pool, images=images, skips=reader)
    inputs: dict[str, Artifact | str] = {
        "backbone": backbone.fingerprint() if team.first else "",
        "pool": source.fingerprint(),
        **({"selection": selection} if selection is not None else {}),
    }
    with team.open_stage(out, "midtrain", config, inputs, overwrite=overwrite) as run:
        if not run.done:
            told = (
                AccelerateTracker(tracker, "midtrain", run.log(""), to_plain(config))
                if tracker and team.first
                else None
            )
            backbone.model.to(team.device or pick_device(config.device)).float()
            backbone.max_tokens = config.max_tokens
            backbone.model.eval()
            chosen = read_selection(selection) if selection is not None else [sample.key for sample in source]
            wanted = chosen[: config.keep]

            def fetch(keys: Sequence[Key]) -> Iterator[Sample]:
                return read_samples(pool, keys, images=images)

            mixture = prepare(
                run,
                wanted,
                fetch,
                backbone,
                Budget(
                    steps=config.steps,
                    batch=config.batch,
                    seed=config.seed,
                    weights=config.weights,
                    repeats=config.repeats,
                ),
                keep_vision=not config.sees and backbone.caches_vision,
                team=team,
            )
            try:
                losses = teach(run, backbone, mixture, fetch, config, team, told)
            finally:
                # What it still holds is sent, also of a run that stopped.
                if told is not None:
                    told.finish()
            if team.first:
                with atomic_path(run.file("model")) as folder:
                    backbone.save(folder)
                write_atomic(run.file("curve.json"), curve(losses))
                run.skips.rows.extend(reader.rows)
                run.finish({"base": backbone.name, **_counts(mixture, config)})
            team.wait()
        artifact = run.artifact()
    if team.first:
        close(out)
        shutil.rmtree(out / FOLDER, ignore_errors=True)
    return artifact


def _counts(mixture: Mixture, config: MidtrainConfig) -> dict[str, Any]:
    composition = mixture.composition()
    return {
        "selected": len(mixture.wanted),
        "usable": len(mixture.keys),
        "steps": config.steps,
        "samples_seen": mixture.steps.size,
        "repeated": sum(int(row["repeated"]) for row in composition.values()),
        "tokens_seen": int(mixture.lengths[mixture.steps].sum()),
        "composition": composition,
    }


def midtrain_command(
    out: Path,
    pool: str,
    selection: Path | None = None,
    config: MidtrainConfig = MidtrainConfig(),
    backbone: str = "compact",
    images: Path | None = None,
    random_language: int | None = None,
    tracker: TrackerName | None = None,
    overwrite: bool = False,
) -> None:
    """Train a backbone on a selection: next-token loss on the answers only.

    Killed, the same command goes on and ends with the same bytes. On several GPUs, start it with accelerate: DDP, or
    FSDP where accelerate's settings ask for it; the result is that of one process, but for rounding.

    Examples:
        emt midtrain --out runs/mine/midtrained --pool runs/mine/pool --selection runs/mine/selected \\
            --steps 60 --batch 16 --micro-batch 16 --train connector language
        emt midtrain --out runs/mine/midtrained --pool data/llava.json --images data/images \\
            --selection runs/mine/selected --backbone HuggingFaceTB/SmolVLM2-256M-Video-Instruct --method lora
        emt midtrain --out runs/mine/midtrained --pool runs/mine/pool --weights books 1 charts 3 --no-repeats
        accelerate launch --multi-gpu --num-processes 8 -m embodied_midtrain.cli midtrain --out runs/mine/midtrained \\
            --pool runs/mine/pool --selection runs/mine/selected

    Args:
        out: folder for the adapted backbone (in `model`).
        pool: the pool that the selection was made from.
        selection: what `emt select` kept; by default the whole pool.
        config: how it is trained.
        backbone: "compact", a folder written by transformers, or a hub name.
        images: folder that image paths in a conversation file start from.
        random_language: seed of a randomly initialised language model, as a control.
        tracker: log there too (`pip install tensorboard`, `wandb` or `trackio`); logs/train.jsonl is written anyway.
        overwrite: replace a result that was made from other inputs or settings.
    """
    chosen = Artifact.given(selection, "select")
    team = join_team(config.device)
    place = str(team.device) if team.device is not None else None
    loaded = load_backbone(backbone, random_language=random_language, device=place)
    artifact = midtrain(
        out,
        config,
        backbone=loaded,
        pool=pool,
        selection=chosen,
        images=images,
        overwrite=overwrite,
        tracker=tracker,
    )
    team.leave()
    if not team.first:
        return
    counts = artifact.counts
    print(f"{artifact.path / 'model'}: {counts['samples_seen']} samples seen, {counts['repeated']} of them repeats")
    print(f"{'source':<24}{'target':>9}{'realised':>10}{'repeated':>10}")
    for name, row in counts["composition"].items():
        print(f"{name:<24}{row['target']:>9.1%}{row['realised']:>10.1%}{row['repeated']:>10}")
    if counts["skipped"]:
        print(f"skipped: {counts['skipped']} (listed in {artifact.path / 'skipped.jsonl'})")
