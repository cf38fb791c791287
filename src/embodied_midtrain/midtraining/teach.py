"""Training a backbone on a mixture, in one process or in a team."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from torch.distributed.tensor import DTensor

from embodied_midtrain.artifacts import StageRun, write_json
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.compact.weights import cache_dir
from embodied_midtrain.backbones.memory import MemoryEstimate
from embodied_midtrain.backbones.precision import pick_precision
from embodied_midtrain.backbones.segments import attend_by_segments
from embodied_midtrain.midtraining.costs import operations
from embodied_midtrain.midtraining.learner import Learner, blocks, gather, spare
from embodied_midtrain.midtraining.mixture import Fetch, Mixture
from embodied_midtrain.midtraining.parts import chosen
from embodied_midtrain.midtraining.room import estimate, in_this_process, refuse_too_large, shared
from embodied_midtrain.midtraining.rows import Rows
from embodied_midtrain.midtraining.settings import MidtrainConfig
from embodied_midtrain.progress import console
from embodied_midtrain.training.ahead import Ahead
from embodied_midtrain.training.loop import Loss, Trainee, train, train_mode
from embodied_midtrain.training.lora import let_learn, merge_lora
from embodied_midtrain.training.peak import matmul_rate
from embodied_midtrain.training.strength import draw_back, remember
from embodied_midtrain.training.team import Team
from embodied_midtrain.training.tracking import Tracker


def teach(
    run: StageRun,
    backbone: Backbone,
    mixture: Mixture,
    fetch: Fetch,
    config: MidtrainConfig,
    team: Team,
    tracker: Tracker | None,
) -> list[float]:
    """Train; the first process's backbone is then the result. Returns the loss of every step."""
    lora = config.method == "lora"
    let_learn(
        backbone.base,
        chosen(backbone, config.train, config.vision_last),
        lora=lora,
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        seed=config.seed,
        targets=config.lora_targets,
    )
    train_mode(backbone.base)
    if config.gradient_checkpointing:
        _checkpointing(backbone, True)
    device = backbone.device
    window = config.tokens_at_once(device)
    text_config: Any = backbone.language.config
    attention = text_config._attn_implementation
    if window is not None and device.type == "cpu":
        attend_by_segments(backbone.language)
    found = in_this_process(shared(estimate(backbone, mixture, config, window), team), device)
    line = refuse_too_large(found, device, _advice(window))
    if team.first:
        write_json(run.log("memory.json"), {**vars(found), "total": found.total})
        console.print(line)
    rows = Rows(mixture, backbone, fetch, team, micro_batch=config.micro_batch, window=window)
    examples = rows.some(8)
    costs = operations(backbone, next((row for row in examples if row.pixels), examples[0]))
    spared = spare(backbone) if team.sharded and team.first else None
    learner = Learner(backbone)
    wrapped = team.wrap(learner, blocks(backbone))
    weights = {name: p for name, p in backbone.base.named_parameters() if p.requires_grad}
    if team.first:
        split = sum(isinstance(p, DTensor) for p in weights.values())
        write_json(run.log("team.json"), {"processes": team.size, "weights": len(weights), "split": split})
    # Resumed runs too are loaded from the base before their checkpoint is put back.
    kept = {name: p for name, p in spared.named_parameters() if name in weights} if spared is not None else weights
    base = remember(kept) if team.first and not lora and config.strength != 1.0 else {}
    ahead = Ahead(rows.step, config.steps)

    def losses(step: int) -> Iterator[Loss]:
        parts = ahead.get(step)
        for n, part in enumerate(parts):
            team.sum_gradients(wrapped, n + 1 == len(parts))
            cost = costs.of(part.lengths, part.learnt, part.pixels)
            yield Loss(wrapped(part.batch) * part.share, sum(part.lengths), cost, part.names)

    advice = _advice(window, found)
    trainee = Trainee(weights, losses, rows.describe, "tokens", lambda: ahead.waited, advice=advice, close=ahead.close)
    peak = matmul_rate(device, pick_precision(config.precision, device), cache_dir() / "matmul.json")
    result = train(run, trainee, config, "midtrain", team=team, tracker=tracker, peak=peak)
    if team.sharded:
        gather(backbone, spared, weights, team)
    if not team.first:
        return result
    if config.gradient_checkpointing:
        _checkpointing(backbone, False)
    backbone.language.set_attn_implementation(attention)  # type: ignore[operator]
    backbone.model.eval()
    if lora:
        probe = backbone.collate(examples[:2])
        merge_lora(backbone.base, lambda: backbone.answer_logits(probe)[0], strength=config.strength)
    elif base:
        trained = {name: p for name, p in backbone.base.named_parameters() if name in weights}
        draw_back(trained, base, config.strength)
    return result


def _checkpointing(backbone: Backbone, on: bool) -> None:
    with warnings.catch_warnings():
        # Its new name is not in all releases that we run with.
        warnings.simplefilter("ignore", FutureWarning)
        if on:
            backbone.base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            backbone.base.gradient_checkpointing_disable()


def _advice(window: int | None, found: MemoryEstimate | None = None) -> str:
    less = "Lower micro_batch" if window is None else "Lower window (not below max_tokens) or max_tokens"
    change = f"{less}, turn gradient_checkpointing on, use method lora, or more processes with FSDP."
    return change if found is None else f"The estimate was:\n{found.table()}\n{change}"
