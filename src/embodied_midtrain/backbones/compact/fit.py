"""The two steps of the compact backbone's training: visual tokens to words, then everything to answers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from embodied_midtrain.artifacts import StageError, StageRun, atomic_path
from embodied_midtrain.backbones.backbone import IGNORED, Backbone
from embodied_midtrain.backbones.compact.gaze import Gaze, looking_states
from embodied_midtrain.backbones.compact.lessons import Picture, batches
from embodied_midtrain.backbones.compact.settings import TrainConfig
from embodied_midtrain.backbones.compact.words import align
from embodied_midtrain.backbones.precision import autocast
from embodied_midtrain.extras import require
from embodied_midtrain.progress import progress_bar


def align_words(
    backbone: Backbone, pictures: Sequence[Picture], vision: Sequence[Tensor], config: TrainConfig, run: StageRun
) -> None:
    """The connector's first step; kept as a part."""
    torch.manual_seed(config.seed)
    file = "words.safetensors"
    if run.part("words") is None:
        shown = [(p.thing.label if p.thing else "", p.placed) for p in pictures]
        losses = align(backbone, vision, shown, steps=config.word_steps, seed=config.seed)
        state = {k: v.contiguous() for k, v in backbone.connector.state_dict().items()}
        run.commit_part("words", {"losses": losses}, {file: lambda path: save_file(state, path)})
    backbone.connector.load_state_dict(load_file(run.file(file)))


def fit(
    backbone: Backbone,
    pictures: Sequence[Picture],
    vision: Sequence[Tensor],
    config: TrainConfig,
    run: StageRun,
    start: Path | None = None,
) -> dict[str, Tensor]:
    """Train connector and low-rank updates; goes on from the last checkpoint.

    Args:
        start: an earlier result to begin with, of the same rank.

    Returns:
        What `apply_trained` takes.
    """
    peft = require("peft", "train")
    rows_of = batches(backbone, pictures, vision, config)
    torch.manual_seed(config.seed)
    wanted = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
    lora = peft.LoraConfig(r=config.rank, lora_alpha=2 * config.rank, target_modules=wanted, lora_dropout=0.0)
    backbone.model = peft.get_peft_model(backbone.model, lora)
    for parameter in backbone.connector.parameters():
        parameter.requires_grad_(True)
    if start is not None:
        _start_from(backbone, load_file(start))
    trained = {name: p for name, p in backbone.model.named_parameters() if p.requires_grad}
    slow = [p for name, p in trained.items() if ".connector." in name]
    fast = [p for name, p in trained.items() if ".connector." not in name]
    # The connector knows its words already.
    groups = [{"params": fast, "share": 1.0}, {"params": slow, "share": 0.3}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=0.01, fused=True)
    saved = run.out / "checkpoint.pt"
    first = 0
    if saved.is_file():
        state = torch.load(saved, weights_only=True)
        first = state["step"]
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(state["weights"][name])
        optimizer.load_state_dict(state["optimizer"])
    weights_of = _digit_weights(backbone)
    gaze = Gaze(backbone)
    log = run.log("train.jsonl")
    backbone.model.train()
    with progress_bar("train", config.steps, done=first) as bar:
        for step in range(first, config.steps):
            rate = _rate(step, config)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["share"]
            with autocast(backbone.device, "auto"):
                rows = rows_of(step)
                batch = {k: v.to(backbone.device) for k, v in backbone.collate(rows).items()}
                states, attention = looking_states(backbone, batch, gaze.layer)
                targets = batch["labels"][:, 1:]
                learnt = targets != IGNORED
                logits = backbone.base.get_output_embeddings()(states[:, :-1][learnt])
            targets = targets[learnt]
            each = F.cross_entropy(logits.float(), targets, reduction="none")
            worth = weights_of(targets)
            loss = (each * worth).sum() / worth.sum()
            looks = gaze.loss(rows, batch["input_ids"], attention)
            (loss + config.gaze * looks).backward()
            torch.nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise StageError(f"the loss is {value} at step {step}; lower learning_rate and start in a new folder.")
            with log.open("a") as file:
                figures = {"step": step, "loss": value, "gaze": float(looks.detach()), "rate": rate}
                file.write(json.dumps(figures) + "\n")
            bar.advance()
            bar.say(f"loss {value:.3f}")
            if (step + 1) % config.save_every == 0 and step + 1 < config.steps:
                weights = {name: p.detach() for name, p in trained.items()}
                state = {"step": step + 1, "weights": weights, "optimizer": optimizer.state_dict()}
                with atomic_path(saved) as temporary:
                    torch.save(state, temporary)
    saved.unlink(missing_ok=True)
    return _exported(backbone)


def _digit_weights(backbone: Backbone) -> Callable[[Tensor], Tensor]:
    """Weights of answer tokens [n]: the first digit of a coordinate says where, the second hardly more than noise."""
    tokenizer = backbone.processor.tokenizer
    size = backbone.base.get_input_embeddings().weight.shape[0]
    digit, before = torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool)
    digit[[tokenizer.convert_tokens_to_ids(str(n)) for n in range(10)]] = True
    before[tokenizer("( (")["input_ids"] + [tokenizer.convert_tokens_to_ids("Ġ")]] = True

    def weights(targets: Tensor) -> Tensor:
        numbers, opened = digit.to(targets.device)[targets], before.to(targets.device)[targets.roll(1)]
        first = numbers & opened
        second = numbers & first.roll(1)
        return torch.ones_like(targets, dtype=torch.float).masked_fill(first, 4.0).masked_fill(second, 0.25)

    return weights


def _rate(step: int, config: TrainConfig) -> float:
    rise = min(1.0, (step + 1) / 30)
    return config.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def _start_from(backbone: Backbone, tensors: dict[str, Tensor]) -> None:
    """The inverse of `_exported`."""
    prefix = "connector."
    backbone.connector.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
    with torch.no_grad():
        for name, module in backbone.language.named_modules():
            if hasattr(module, "lora_A"):
                module.lora_A["default"].weight.copy_(tensors[f"lora.{name}.a"])
                module.lora_B["default"].weight.copy_(tensors[f"lora.{name}.b"] / module.scaling["default"])


def _exported(backbone: Backbone) -> dict[str, Tensor]:
    """Connector and low-rank updates as `apply_trained` takes them, in bfloat16."""
    tensors = {f"connector.{name}": p for name, p in backbone.connector.state_dict().items()}
    for name, module in backbone.language.named_modules():
        if hasattr(module, "lora_A"):
            tensors[f"lora.{name}.a"] = module.lora_A["default"].weight
            tensors[f"lora.{name}.b"] = module.lora_B["default"].weight * module.scaling["default"]
    return {name: t.detach().to(torch.bfloat16).contiguous().cpu() for name, t in tensors.items()}
