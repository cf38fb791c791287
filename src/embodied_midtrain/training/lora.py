"""LoRA by peft, in place: added to a model, trained, merged back with proof that nothing changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.extras import require


def add_lora(
    model: nn.Module,
    *,
    rank: int,
    alpha: float,
    seed: int,
    within: Sequence[nn.Parameter] | None = None,
    targets: Sequence[str] = (),
) -> list[str]:
    """Put LoRA beside the linear layers of `model`, in place, and freeze all else; returns the layers' names.

    Args:
        within: only layers whose weight is among these parameters; None: all linear layers but the output
            embedding.
        targets: only layers whose name ends so, such as "q_proj"; none given: all of them.

    Raises:
        ValueError: where no linear layer is left to adapt, or a target names none.
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
    found = {name.rpartition(".")[2] for name in names}
    if absent := [t for t in targets if not any(_ends(name, t) for name in names)]:
        raise ValueError(f"lora_targets: no layer is called {', '.join(absent)}; there are {', '.join(sorted(found))}")
    names = [name for name in names if not targets or any(_ends(name, t) for t in targets)]
    if not names:
        raise ValueError("LoRA found no linear layer in the parts that are to be trained; choose other parts")
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=names, bias="none")
    peft.inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "lora_" in name
    return names


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def let_learn(
    model: nn.Module,
    chosen: Sequence[nn.Parameter],
    *,
    lora: bool,
    rank: int,
    alpha: float,
    seed: int,
    targets: Sequence[str] = (),
) -> None:
    """Freeze all of `model` but `chosen`: these learn themselves, or by LoRA beside their linear layers.

    Raises:
        ValueError: where LoRA finds no linear layer, or one of `targets` not, among them.
    """
    model.requires_grad_(False)
    if lora:
        add_lora(model, rank=rank, alpha=alpha, seed=seed, within=chosen, targets=targets)
    else:
        for parameter in chosen:
            parameter.requires_grad = True


def merge_lora(model: nn.Module, probe: Callable[[], Tensor], tolerance: float = 1e-2, strength: float = 1.0) -> float:
    """Fold LoRA into the weights and take it out, in place; returns the largest relative change of `probe()`.

    Args:
        probe: some outputs of the model on fixed inputs, called before and after.
        tolerance: of max |after - before| / max |before|.
        strength: the result is base + strength * what LoRA learnt; `probe` is first called at that strength.

    Raises:
        StageError: where the merged model says something else.
    """
    tuner = require("peft.tuners.lora", "train")
    with torch.no_grad():
        if strength != 1.0:
            for module in model.modules():
                if isinstance(module, tuner.LoraLayer):
                    module.scale_layer(strength)
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
