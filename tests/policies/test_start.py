"""From one policy to the next: robot-data pretraining, then the target task."""

from dataclasses import replace

import pytest
import torch

from embodied_midtrain.artifacts import ArtifactMismatch, StageError
from embodied_midtrain.policies.finetune import FinetuneConfig, finetune
from embodied_midtrain.policies.opening import load_actor
from embodied_midtrain.policies.start import StartConfig
from tests.policies.made import FAST
from tests.policies.test_finetune import FROZEN, SMALL, run
from tests.tiny import SPEC, Dots

NOTHING = {"steps": 1, "warmup_steps": 0, "lr": 1e-12}
"""Training that changes next to nothing: what comes out is what was started from."""


def on(out, policy, robots=None, mode="full", **settings):
    config = FinetuneConfig(**{**(FROZEN if mode == "frozen" else SMALL), "mode": mode, **settings})
    return finetune(out, config, backbone=policy.backbone, demos=robots or Dots(4), start=policy)


@pytest.mark.parametrize("head", ["query", "parallel", "flow", "fast"])
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_backbone_and_head_go_on(tmp_path, head, mode):
    run(tmp_path / "pretrained", head=head, fast=FAST, steps=4)
    before = load_actor(tmp_path / "pretrained")
    frames, said = Dots().episodes[0].frames[:3], ["go left"] * 3
    wanted = before.act(frames, said)
    on(tmp_path / "out", load_actor(tmp_path / "pretrained"), Dots(), mode, head=head, fast=FAST, **NOTHING)
    after = load_actor(tmp_path / "out")
    assert abs(after.act(frames, said) - wanted).max() < 1e-2
    for one, other in zip(before.net.parameters(), after.net.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_head_renewed_begins_anew_on_the_backbone(tmp_path):
    run(tmp_path / "pretrained", head="query", steps=4)
    start = load_actor(tmp_path / "pretrained")
    settings = {"head": "flow", "start": StartConfig(start_head="renewed"), **NOTHING}
    # A head of another kind, on a robot whose actions mean something else.
    robots = Dots(4)
    robots.spec = replace(SPEC, rate=20.0)
    before = {n: p.clone() for n, p in start.backbone.base.named_parameters()}
    on(tmp_path / "out", start, robots, **settings)
    after = load_actor(tmp_path / "out")
    assert after.spec.rate == 20.0 and after.shape.head == "flow"
    for name, parameter in after.backbone.base.named_parameters():
        torch.testing.assert_close(parameter, before[name])


def test_frozen_goes_on_from_frozen(tmp_path):
    run(tmp_path / "pretrained", mode="frozen")
    start = load_actor(tmp_path / "pretrained")
    on(tmp_path / "out", start, mode="frozen", **NOTHING)
    reader = load_actor(tmp_path / "out").net.reader
    torch.testing.assert_close(reader.queries, start.net.reader.queries)
    with pytest.raises(StageError, match=r"mode: frozen there, full now"):
        on(tmp_path / "other", start)


def test_statistics_are_new_or_kept(tmp_path):
    run(tmp_path / "pretrained", steps=2)
    start = load_actor(tmp_path / "pretrained")
    robots = Dots(4)
    robots.episodes = [replace(e, actions=e.actions * 0.5) for e in robots.episodes]
    on(tmp_path / "new", start, robots, **NOTHING)
    on(tmp_path / "kept", start, robots, start=StartConfig(start_statistics="kept"), **NOTHING)
    new, kept = (load_actor(tmp_path / name).codec.normaliser for name in ("new", "kept"))
    assert kept == start.codec.normaliser != new


def test_what_cannot_go_on_is_named(tmp_path):
    run(tmp_path / "pretrained", steps=2)
    start = load_actor(tmp_path / "pretrained")
    with pytest.raises(StageError, match=r"(?s)chunk: 3 there, 4 now.*--start-head renewed"):
        on(tmp_path / "a", start, chunk=4)
    with pytest.raises(StageError, match=r"head: query there, parallel now"):
        on(tmp_path / "b", start, head="parallel")
    robots = Dots(4)
    robots.spec = replace(SPEC, gripper_closed=-1)
    for config in (StartConfig(), StartConfig(start_head="renewed", start_statistics="kept")):
        with pytest.raises(StageError, match=r"gripper_closed: 1 against -1"):
            on(tmp_path / "c", start, robots, start=config)
    on(tmp_path / "d", start, **NOTHING)
    run(tmp_path / "others", steps=3)
    with pytest.raises(ArtifactMismatch, match="start"):
        on(tmp_path / "d", load_actor(tmp_path / "others"), **NOTHING)
