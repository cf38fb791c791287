"""The estimate against real tensors."""

import contextlib
from dataclasses import replace

import pytest
import torch

from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.memory import MemoryPlan, estimate_memory
from embodied_midtrain.training.lora import add_lora
from tests import tiny
from tests.backbones.talk import samples

FACTOR = 1.5
"""What activations may be off by."""


def measured(backbone: Backbone) -> tuple[int, int, int]:
    """Bytes of weights, gradients and the optimiser's state after a step."""
    trained = [p for p in backbone.base.parameters() if p.requires_grad]
    stepper = torch.optim.AdamW(trained, lr=1e-3)
    backbone.loss(backbone.collate([backbone.render(sample) for sample in samples()])).backward()
    stepper.step()
    weights = sum(p.nbytes for p in backbone.base.parameters())
    gradients = sum(p.grad.nbytes for p in trained if p.grad is not None)
    state = [t for one in stepper.state.values() for t in one.values() if isinstance(t, torch.Tensor)]
    return weights, gradients, sum(t.nbytes for t in state)


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("train", [("vision", "connector", "language"), ("connector", "language")])
def test_weights_gradients_and_optimiser_are_exact(kind: str, train: tuple) -> None:
    backbone = tiny.backbone(kind)
    backbone.base.requires_grad_(False)
    for name in train:
        for parameter in backbone.groups()[name]:
            parameter.requires_grad = True
    found = estimate_memory(backbone.base.config, MemoryPlan(tokens=10, pictures=1, train=train))
    assert (found.weights, found.gradients, found.optimiser) == measured(backbone)


@pytest.mark.parametrize("kind", ["compact", "qwen3_vl", "paligemma"])
def test_lora_is_exact(kind: str) -> None:
    pytest.importorskip("peft")
    backbone = tiny.backbone(kind)
    add_lora(backbone.base, rank=4, alpha=8, seed=0, within=backbone.groups()["language"])
    plan = MemoryPlan(tokens=10, pictures=1, method="lora", rank=4, train=("language",))
    found = estimate_memory(tiny.backbone(kind).base.config, plan)
    assert (found.weights, found.gradients, found.optimiser) == measured(backbone)


def kept(backbone: Backbone, batch: dict[str, torch.Tensor], precision: str) -> int:
    """Bytes that autograd keeps of a forward pass, the model's own tensors not among them."""
    own = {t.untyped_storage().data_ptr() for t in [*backbone.base.parameters(), *backbone.base.buffers()]}
    found: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own and tensor.is_floating_point():
            found[place] = tensor
        return tensor

    half = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), half:
        states = backbone.states(batch)
    del states
    return sum(t.untyped_storage().nbytes() for t in found.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("attention", ["eager", "fused"])
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_activations_are_near(kind: str, attention: str, precision: str) -> None:
    if kind == "paligemma2" and attention == "fused":
        pytest.skip("Gemma 2 has plain attention only")
    backbone = tiny.backbone(kind)
    backbone.model.set_attn_implementation("eager" if attention == "eager" else "sdpa")
    rows = [backbone.render(sample) for sample in samples()[:3]] * 2
    longest = max(len(row) for row in rows)
    plan = MemoryPlan(
        tokens=longest * len(rows),
        pictures=len(rows),
        length=longest,
        compute=precision,
        attention=attention,
    )
    if kind.startswith("qwen"):
        # It counts on image tokens everywhere: ask it about these.
        share = sum(row.ids.count(backbone.image_token_id) for row in rows) / plan.tokens
    else:
        share = 1.0
    whole = estimate_memory(backbone.base.config, plan).activations
    language = estimate_memory(backbone.base.config, replace(plan, train=("language",))).activations
    found = kept(backbone, backbone.collate(rows), precision)
    told = language + share * (whole - language)
    assert told / FACTOR < found < told * FACTOR, f"told {told}, found {found}"


def test_what_makes_it_smaller() -> None:
    config = tiny.backbone("qwen3_vl").base.config
    plan = MemoryPlan(tokens=4096, pictures=8)
    whole = estimate_memory(config, plan)
    parts = whole.weights + whole.gradients + whole.optimiser + whole.copies + whole.activations + whole.head
    assert whole.total == parts
    assert f"{whole.total / 1024**3:.3f} GiB" in whole.table().splitlines()[-1]
    assert estimate_memory(config, replace(plan, checkpointing=True)).activations < whole.activations / 2
    assert estimate_memory(config, replace(plan, method="lora", rank=2)).optimiser < whole.optimiser / 2
    assert estimate_memory(config, replace(plan, compute="fp32")).copies == 0 < whole.copies
    assert estimate_memory(config, replace(plan, attention="eager")).activations > whole.activations
    with pytest.raises(ValueError, match="needs tokens"):
        estimate_memory(config, replace(plan, tokens=0))
