"""`emt midtrain`: adapt a backbone to a selection by next-token prediction (EmbodiedMidtrain, table 3)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embodied_midtrain.artifacts import Artifact, Skips, atomic_path, open_stage, write_atomic
from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.midtraining.mixture import FOLDER, Fetch, Key, Mixture, prepare
from embodied_midtrain.proximity.select import read_selection
from embodied_midtrain.samples import Sample
from embodied_midtrain.sources.opening import open_pool, read_samples
from embodied_midtrain.training.loop import Loss, Optimisation, Trainee, close, curve, pick_device, train, train_mode
from embodied_midtrain.training.lora import let_learn, merge_lora


@dataclass(frozen=True, kw_only=True)
class MidtrainConfig(Optimisation):
    """How a backbone is mid-trained. The defaults are the paper's."""

    method: Literal["full", "lora"] = "full"
    """Whether the weights themselves learn, or LoRA beside them that is merged at the end."""
    train: tuple[Literal["vision", "connector", "language"], ...] = ("vision", "connector", "language")
    """Parts of the backbone that learn. Without vision its output is computed once a sample and kept on disk."""
    lora_rank: int = 32
    """Rank of LoRA."""
    lora_alpha: float = 64.0
    """Scale of LoRA, times its rank."""
    max_tokens: int = 1024
    """Longer samples are skipped and counted."""
    keep: int | None = None
    """Only the first samples of the selection."""

    def check(self) -> None:
        super().check()
        if not self.train:
            raise ValueError("train names no part of the backbone: give vision, connector or language")
        if self.keep is not None and self.keep < 1:
            raise ValueError(f"keep is {self.keep}; it must be at least 1")


def midtrain(
    out: Path,
    config: MidtrainConfig,
    *,
    backbone: Backbone,
    pool: Path | str,
    selection: Artifact | None = None,
    images: Path | None = None,
    overwrite: bool = False,
) -> Artifact:
    """Train `backbone` (changed in place) on a selection of `pool`.

    The artifact holds `model`, a plain transformers checkpoint that `load_backbone` opens, and `curve.json`. Its
    counts say how often each source was drawn against what was meant, and how many draws were repeats.

    Args:
        selection: an 'emt select' artifact; None: the whole pool.
        images: folder that image paths in a conversation file start from.

    Raises:
        StageError: no usable sample, a sample that is not in the pool, or a loss that is not a number.
        ValueError: settings that cannot be meant.
    """
    config.check()
    source = open_pool(pool, images=images, skips=Skips())
    inputs: dict[str, Artifact | str] = {
        "backbone": backbone.fingerprint(),
        "pool": source.fingerprint(),
        **({"selection": selection} if selection is not None else {}),
    }
    with open_stage(out, "midtrain", config, inputs, overwrite=overwrite) as run:
        if not run.done:
            backbone.model.to(pick_device(config.device)).float()
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
                steps=config.steps,
                batch=config.batch,
                seed=config.seed,
                keep_vision="vision" not in config.train and backbone.caches_vision,
            )
            source_of_rows = Rows(mixture, backbone, fetch)
            losses = train(run, _trainee(backbone, source_of_rows, config), config, "midtrain")
            if config.method == "lora":
                backbone.model.eval()
                probe = backbone.collate(source_of_rows.step(config.steps - 1)[:2])
                merge_lora(backbone.base, lambda: backbone.answer_logits(probe)[0])
            with atomic_path(run.file("model")) as folder:
                backbone.save(folder)
            write_atomic(run.file("curve.json"), curve(losses))
            run.finish(_counts(mixture, config))
        artifact = run.artifact()
    close(out)
    shutil.rmtree(out / FOLDER, ignore_errors=True)
    return artifact


class Rows:
    """The rows of each step: from disk, or rendered from a stream of the pool in the order of the steps."""

    def __init__(self, mixture: Mixture, backbone: Backbone, fetch: Fetch) -> None:
        self.mixture = mixture
        self.backbone = backbone
        self._fetch = fetch
        self._stream: Iterator[Sample] | None = None
        self._next = -1

    def step(self, step: int) -> list[Rendered]:
        index = self.mixture.steps[step].tolist()
        if self.mixture.kept is not None:
            return [self.mixture.kept.row(i) for i in index]
        if self._stream is None or self._next != step:
            self._stream = self._fetch([self.mixture.keys[i] for i in self.mixture.steps[step:].ravel().tolist()])
        self._next = step + 1
        return [self.backbone.render(next(self._stream)) for _ in index]

    def describe(self, step: int) -> str:
        names = ["/".join(self.mixture.keys[i]) for i in self.mixture.steps[step].tolist()]
        return f"samples {', '.join(names[:8])}" + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _trainee(backbone: Backbone, rows: Rows, config: MidtrainConfig) -> Trainee:
    groups = backbone.groups()
    chosen = [parameter for name in config.train for parameter in groups[name]]
    lora = config.method == "lora"
    let_learn(backbone.base, chosen, lora=lora, rank=config.lora_rank, alpha=config.lora_alpha, seed=config.seed)
    train_mode(backbone.base)

    def losses(step: int) -> Iterator[Loss]:
        batch = rows.step(step)
        # Means over micro-batches would weigh a token by its micro-batch; shares of all learnt tokens do not.
        learnt = sum(sum(row.learnt[1:]) for row in batch)
        for at in range(0, len(batch), config.micro_batch):
            part = batch[at : at + config.micro_batch]
            share = sum(sum(row.learnt[1:]) for row in part) / learnt
            yield Loss(backbone.loss(backbone.collate(part)) * share, sum(len(row) for row in part))

    weights = {name: p for name, p in backbone.base.named_parameters() if p.requires_grad}
    return Trainee(weights, losses, rows.describe, unit="tokens")


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
    overwrite: bool = False,
) -> None:
    """Train a backbone on a selection: next-token loss on the answers only.

    Killed, the same command goes on and ends with the same bytes.

    Examples:
        emt midtrain --out runs/mine/midtrained --pool runs/mine/pool --selection runs/mine/selected \\
            --steps 60 --batch 16 --micro-batch 16 --train connector language
        emt midtrain --out runs/mine/midtrained --pool data/llava.json --images data/images \\
            --selection runs/mine/selected --backbone HuggingFaceTB/SmolVLM2-256M-Video-Instruct --method lora

    Args:
        out: folder for the adapted backbone (in `model`).
        pool: the pool that the selection was made from.
        selection: what `emt select` kept; by default the whole pool.
        config: how it is trained.
        backbone: "compact", a folder written by transformers, or a hub name.
        images: folder that image paths in a conversation file start from.
        random_language: seed of a randomly initialised language model, as a control.
        overwrite: replace a result that was made from other inputs or settings.
    """
    chosen = Artifact.open(selection, "select") if selection is not None else None
    loaded = load_backbone(backbone, random_language=random_language)
    artifact = midtrain(out, config, backbone=loaded, pool=pool, selection=chosen, images=images, overwrite=overwrite)
    counts = artifact.counts
    print(f"{artifact.path / 'model'}: {counts['samples_seen']} samples seen, {counts['repeated']} of them repeats")
    print(f"{'source':<24}{'target':>9}{'realised':>10}{'repeated':>10}")
    for name, row in counts["composition"].items():
        print(f"{name:<24}{row['target']:>9.1%}{row['realised']:>10.1%}{row['repeated']:>10}")
    if counts["skipped"]:
        print(f"skipped: {counts['skipped']} (listed in {artifact.path / 'skipped.jsonl'})")
