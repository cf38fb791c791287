"""What all heads have in common, on tiny backbones of two architectures."""

import numpy as np
import pytest
import torch

from embodied_midtrain.policies.finetune import FinetuneConfig
from embodied_midtrain.policies.flow import FlowConfig
from embodied_midtrain.policies.opening import load_actor, open_policy
from embodied_midtrain.policies.parallel import ParallelConfig
from tests.policies.made import CHUNK, FAST, goal, made, rows
from tests.policies.test_finetune import FROZEN, SMALL, run
from tests.tiny import KINDS, SPEC, Dots

HEADS = {
    "query": {},
    "parallel": {},
    "parallel, steps": {"parallel": ParallelConfig(placeholders="steps")},
    "flow": {},
    "flow, adaptive": {"flow": FlowConfig(expert_time="adaptive")},
    "flow, insulated": {"flow": FlowConfig(insulate=True, expert_width=12)},
    "fast": {},
}


def of(name, kind="compact", **more):
    return made(name.partition(",")[0], kind, **HEADS[name], **more)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", HEADS)
def test_shapes_and_no_leak_between_rows(name, kind):
    model, net, _ = of(name, kind)
    with torch.inference_mode():
        arm, gripper = net.answer(model, rows(model))
        assert arm.shape == (3, CHUNK, 2) and gripper.shape == (3, CHUNK)
        for n, row in enumerate(rows(model)):
            alone, closed = net.answer(model, [row])
            torch.testing.assert_close(arm[n], alone[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(gripper[n], closed[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", HEADS)
def test_gradients_reach_every_parameter(name, kind):
    model, net, config = of(name, kind)
    with torch.no_grad():
        # A query of zeros and gates of zero stop gradients in the first step, by design.
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    net.loss(model, rows(model), goal(), config).backward()
    parts = {**dict(net.named_parameters()), **dict(model.base.named_parameters())}
    without = {name for name, p in parts.items() if p.grad is None or not p.grad.abs().sum() > 0}
    unused = set()
    if "insulated" not in name and name != "fast":
        # No words are said.
        unused = {n for n in without if n.startswith("lm_head")}
    if name in ("flow", "flow, adaptive"):
        # Of the last layer only keys and values are asked for.
        language = next(n for n, m in model.base.named_modules() if m is model.language)
        needed = ("k_proj", "v_proj", "k_norm", "input_layernorm")
        last = [n for n in parts if n.startswith(f"{language}.layers.{model.layers - 1}.")]
        unused |= {n for n in last if not any(part in n for part in needed)} | {f"{language}.norm.weight"}
    assert without == unused


@pytest.mark.parametrize("name", [name for name in HEADS if "flow" not in name])
def test_the_loss_of_rows_is_the_mean_of_each_rows(name):
    model, net, config = of(name)
    with torch.no_grad():
        whole = net.loss(model, rows(model), goal(), config)
        full = goal()
        each = [
            net.loss(model, [row], type(full)(full.arm[n : n + 1], full.closed[n : n + 1]), config)
            for n, row in enumerate(rows(model))
        ]
    torch.testing.assert_close(whole, torch.stack(each).mean(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", ["full", "lora", "frozen"])
@pytest.mark.parametrize("name", HEADS)
def test_trained_saved_and_loaded_it_acts_the_same(tmp_path, name, mode):
    if mode == "frozen" and (name == "fast" or "insulated" in name):
        with pytest.raises(ValueError, match="learns nothing"):
            FinetuneConfig(**FROZEN, head=name.partition(",")[0], **HEADS[name]).check()
        return
    rank = {"lora_rank": 4, "train": ("connector", "language")} if mode == "lora" else {}
    head = name.partition(",")[0]
    artifact = run(tmp_path / "out", mode=mode, head=head, fast=FAST, steps=4, lr=3e-3, **HEADS[name], **rank)
    assert artifact.counts["samples_seen"] == 32
    actor = load_actor(tmp_path / "out", SPEC)
    frames = Dots().episodes[0].frames[:3]
    actions = actor.act(frames, ["go left", "go right", "move left"])
    assert actions.shape == (3, 3, 3) and (np.abs(actions) <= 1).all()
    assert set(np.unique(actions[..., 2])) <= {-1.0, 1.0}
    # Its weights are as saved, the actor's in the precision that both compute in.
    again = open_policy(tmp_path / "out" / "policy")
    assert np.array_equal(again.act(frames, ["go left", "go right", "move left"]), actions)
    assert again.identity == actor.identity
    other = actor.reseeded(5)
    assert other.identity != actor.identity
    assert np.array_equal(other.act(frames, ["go left"] * 3), again.act(frames, ["go left"] * 3)) == (head != "flow")


@pytest.mark.parametrize("name", ["parallel", "flow, insulated", "fast"])
def test_killed_and_resumed_every_head_ends_the_same(tmp_path, name, monkeypatch):
    from embodied_midtrain.training import checkpoint

    settings = {"head": name.partition(",")[0], "fast": FAST, "steps": 4, **HEADS[name]}
    whole = run(tmp_path / "whole", **settings)
    settings["save_seconds"] = 0.0
    save = checkpoint.save

    def dying(folder, step, *rest, **more):
        save(folder, step, *rest, **more)
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", **settings)
    monkeypatch.undo()
    again = run(tmp_path / "killed", **settings)
    assert again.manifest["files"] == whole.manifest["files"]


def test_fewer_layers_train_and_come_back(tmp_path):
    run(tmp_path / "out", layers=2, head="flow")
    actor = load_actor(tmp_path / "out")
    assert actor.backbone.layers == len(actor.backbone.language.layers) == actor.shape.room.layers == 2
    with pytest.raises(ValueError, match="layers is 4"):
        run(tmp_path / "other", layers=4)
    with pytest.raises(ValueError, match="leave `layers` out"):
        FinetuneConfig(**FROZEN, layers=2).check()


def test_the_head_may_learn_faster_than_the_backbone(tmp_path):
    from tests.tiny import backbone

    run(tmp_path / "out", head="parallel", lr=1e-12, head_lr=1e-2, steps=4)
    run(tmp_path / "slow", head="parallel", lr=1e-12, steps=4)
    fast, slow = (open_policy(tmp_path / name) for name in ("out", "slow"))
    moved = [(a - b).abs().max() for a, b in zip(fast.net.parameters(), slow.net.parameters(), strict=True)]
    assert min(moved) > 1e-3
    fresh = backbone("compact").base.state_dict()
    for name, weight in fast.backbone.base.state_dict().items():
        torch.testing.assert_close(weight, fresh[name])
    with pytest.raises(ValueError, match="head_lr"):
        FinetuneConfig(**FROZEN, head_lr=1e-3).check()


def test_settings_of_heads_that_cannot_be_meant_are_refused():
    for settings, words in (
        ({"head": "fast", "fast": type(FAST)(fast_vocabulary=20)}, "35 different coefficients"),
        ({"fast": type(FAST)(fast_scale=0), "head": "fast"}, "fast_scale"),
        ({"flow": FlowConfig(euler_steps=0)}, "euler_steps"),
        ({"flow": FlowConfig(expert_width=7)}, "even one"),
        ({"parallel": ParallelConfig(residual_blocks=-1)}, "residual_blocks"),
    ):
        with pytest.raises(ValueError, match=words):
            FinetuneConfig(**{**SMALL, **settings}).check()
