"""Held to where they started: the formula, a resumed run, and what is not held."""

import pytest
import torch
from torch import nn

from embodied_midtrain.artifacts import open_stage
from embodied_midtrain.policies.settings import FinetuneConfig
from embodied_midtrain.training.loop import Loss, Optimisation, Trainee, train
from embodied_midtrain.training.schedule import cosine, warmup_steps


def run(folder, stop=None, fresh=(), **settings):
    torch.manual_seed(0)
    weights = {name: nn.Parameter(torch.randn(3)) for name in ("base", "head")}
    config = Optimisation(
        **{
            "steps": 30,
            "batch": 1,
            "micro_batch": 1,
            "lr": 0.1,
            "clip": 1e9,
            "precision": "fp32",
            "save_seconds": 0.0,
            **settings,
        }
    )

    def losses(step):
        if step == stop:
            raise KeyboardInterrupt
        yield Loss(sum((w - 5).square().sum() for w in weights.values()), 1)

    with open_stage(folder, "anchored", config, {}) as opened:
        train(opened, Trainee(weights, losses, str, fresh=fresh), config, "anchored")
    return {name: w.detach().clone() for name, w in weights.items()}, config


def test_the_formula(tmp_path):
    found, config = run(tmp_path / "a", anchor=2.0)
    torch.manual_seed(0)
    weights = [torch.randn(3).requires_grad_() for _ in range(2)]
    starts = [w.detach().clone() for w in weights]
    optimiser = torch.optim.AdamW(weights, lr=0.1, weight_decay=0.0)
    for step in range(30):
        rate = 0.1 * cosine(step, 30, warmup_steps(30, ratio=config.warmup_ratio, fixed=None))
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        sum((w - 5).square().sum() for w in weights).backward()
        optimiser.step()
        with torch.no_grad():
            for weight, start in zip(weights, starts, strict=True):
                weight.copy_(weight - rate * 2.0 * (weight - start))
    assert torch.allclose(found["base"], weights[0], atol=1e-5)
    assert torch.allclose(found["head"], weights[1], atol=1e-5)


def test_a_resumed_run_is_held_to_the_same_start(tmp_path):
    whole, _ = run(tmp_path / "whole", anchor=3.0)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop=17, anchor=3.0)
    again, _ = run(tmp_path / "cut", anchor=3.0)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_what_starts_at_random_is_not_held(tmp_path):
    free, _ = run(tmp_path / "free")
    held, _ = run(tmp_path / "held", anchor=4.0, fresh=("head",))
    assert torch.equal(free["head"], held["head"])
    torch.manual_seed(0)
    start = torch.randn(3)
    assert (held["base"] - start).norm() < 0.5 * (free["base"] - start).norm()


def test_what_cannot_be_meant():
    for anchor in (-1.0, 10.0):
        with pytest.raises(ValueError, match="anchor is"):
            Optimisation(lr=0.1, anchor=anchor).check()
    with pytest.raises(ValueError, match="anchor has nothing to hold"):
        FinetuneConfig(chunk=2, executed=1, mode="frozen", anchor=1.0).check()
