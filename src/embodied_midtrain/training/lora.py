"""LoRA by peft, in place: added to a model, trained, merged back with proof that nothing changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.extras import require


def add_lora(
    model: nn.Module, *, rank: int, alpha: float, seed: int, within: Sequence[nn.Parameter] | None = None
) -> list[str]:
    """Put LoRA beside the linear layers of `model`, in place, and freeze all else; returns the layers' names.

    Args:
        within: only layers whose weight is among these parameters; None: all linear layers but the output
            embedding.

    Raises:
        ValueError: where no linear layer is left to adapt.
    """
    peft = require("peft", "train")
    allowed = None if within is None else {id(p) for p in within}
    embeddings: Callable[[], nn.Module | None] = getattr(model, "get_output_embeddings", lambda: None)
    head = embeddings()
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and (allowed is None or id(module.weight) in allowed)
    ]
    if not names:
        raise ValueError("LoRA found no linear layer in the parts that are to be trained; choose other parts")
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=names, bias="none")
    peft.inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "lora_" in name
    return names


def let_learn(
    model: nn.Module, chosen: Sequence[nn.Parameter], *, lora: bool, rank: int, alpha: float, seed: int
) -> None:
    """Freeze all of `model` but `chosen`: these learn themselves, or by LoRA beside their linear layers.

    Raises:
        ValueError: where LoRA finds no linear layer among them.
    """
    model.requires_grad_(False)
    if lora:
        add_lora(model, rank=rank, alpha=alpha, seed=seed, within=chosen)
    else:
        for parameter in chosen:
            parameter.requires_grad = True


def merge_lora(model: nn.Module, probe: Callable[[], Tensor], tolerance: float = 1e-2) -> float:
    """Fold LoRA into the weights and take it out, in place; returns the largest relative change of `probe()`.

    Args:
        probe: some outputs of the model on fixed inputs, called before and after.
        tolerance: of max |after - before| / max |before|.

    Raises:
        StageError: where the merged model says something else.
    """
    tuner = require("peft.tuners.lora", "train")
    with torch.no_grad():
        before = probe().float()
        for name, module in list(model.named_modules()):
            if isinstance(module, tuner.LoraLayer):
                module.merge(safe_merge=True)
                parent = model.get_submodule(name.rpartition(".")[0])
                setattr(parent, name.rpartition(".")[2], module.get_base_layer())
        after = probe().float()
    if hasattr(model, "peft_config"):
        del model.peft_config
    change = float((after - before).abs().max() / before.abs().max().clamp_min(1e-12))
    if not change <= tolerance:
        raise StageError(f"the merged model differs from the trained one by {change:.2g} (allowed {tolerance})")
    return change
