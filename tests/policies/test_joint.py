"""Robot frames and image-text samples in one batch."""

import json

import numpy as np
import pytest
import torch

from embodied_midtrain.artifacts import ArtifactMismatch
from embodied_midtrain.policies import queried
from embodied_midtrain.policies.finetune import FinetuneConfig, finetune
from embodied_midtrain.policies.joint import ImageText, JointConfig
from embodied_midtrain.policies.opening import open_policy
from tests.midtraining.small_pool import make_pool, samples, select
from tests.policies.test_finetune import SMALL
from tests.tiny import Dots, backbone

JOINT = JointConfig(vqa_ratio=0.5, vqa_weight=0.1)


def run(out, data, **settings):
    config = FinetuneConfig(**{**SMALL, "joint": JOINT, **settings})
    return finetune(out, config, backbone=backbone("compact"), demos=Dots(), vqa=data)


@pytest.fixture
def pool(tmp_path):
    return ImageText(make_pool(tmp_path / "pool", samples()))


@pytest.mark.parametrize("train", [("vision", "connector", "language"), ("connector", "language")])
@pytest.mark.parametrize("head", ["query", "parallel", "flow", "fast"])
def test_a_steps_loss_is_both_at_the_stated_weight(tmp_path, pool, monkeypatch, head, train):
    """The first step, computed by hand from the same rows."""
    seen = {}
    trainee = queried.trainee

    def spying(stage, policy, store, config, joint):
        made = trainee(stage, policy, store, config, joint)
        torch.manual_seed(config.seed)
        batches = queried.Batches(policy, store, config)
        with torch.no_grad():
            actions, goals = 0.0, queried.Goals(policy.codec, store, policy.backbone.device)
            for at in range(0, config.batch, config.micro_batch):
                index, rows = batches.rows(0, slice(at, at + config.micro_batch))
                loss = policy.net.loss(policy.backbone, rows, goals.at(index), config)
                actions += float(loss) * len(index) / config.batch
            keys = [joint.mixture.keys[i] for i in joint.mixture.steps[0]]
            rows = [policy.backbone.render(sample) for sample in pool.fetch(keys)]
            seen["vqa"] = float(policy.backbone.loss(policy.backbone.collate(rows)))
        seen["actions"] = actions
        return made

    monkeypatch.setattr(queried, "trainee", spying)
    artifact = run(tmp_path / "out", pool, head=head, steps=2, train=train, warmup_steps=1)
    first = json.loads(artifact.file("curve.json").read_text())["loss"][0]
    # The vision tower's cached output is kept in half precision.
    assert first == pytest.approx(seen["actions"] + 0.1 * seen["vqa"], rel=1e-3)
    assert seen["vqa"] > 1
    logged = json.loads((artifact.path / "logs/train.jsonl").read_text().partition("\n")[0])
    assert logged["loss_actions"] == pytest.approx(seen["actions"], rel=1e-3)
    assert logged["loss_image_text"] == pytest.approx(0.1 * seen["vqa"], rel=1e-3)


@pytest.mark.parametrize(("ratio", "batch", "samples_a_step"), [(0.5, 8, 4), (0.125, 8, 1), (2.0, 4, 8)])
def test_the_realised_ratio_is_exact(tmp_path, pool, ratio, batch, samples_a_step):
    joint = JointConfig(vqa_ratio=ratio)
    counts = run(tmp_path / "out", pool, joint=joint, steps=3, batch=batch).counts
    assert counts["vqa_seen"] == 3 * samples_a_step and counts["vqa_ratio"] == ratio
    assert counts["samples_seen"] == 3 * batch
    assert sum(row["drawn"] for row in counts["vqa_composition"].values()) == counts["vqa_seen"]


def test_only_the_selection_is_seen(tmp_path, pool):
    chosen = select(tmp_path / "selected", samples()[:3])
    counts = run(tmp_path / "out", ImageText(pool.pool, chosen), steps=2).counts
    assert list(counts["vqa_composition"]) == ["books"] and counts["vqa_composition"]["books"]["selected"] == 3
    with pytest.raises(ArtifactMismatch, match="vqa_selection"):
        run(tmp_path / "out", pool, steps=2)


def test_killed_and_resumed_joint_training_ends_the_same(tmp_path, pool, monkeypatch):
    from embodied_midtrain.training import checkpoint

    whole = run(tmp_path / "whole", pool, steps=4, train=("connector", "language"))
    save = checkpoint.save

    def dying(folder, step, *rest, **more):
        save(folder, step, *rest, **more)
        if step == 2:
            raise KeyboardInterrupt

    again = {"steps": 4, "train": ("connector", "language"), "save_seconds": 0.0}
    monkeypatch.setattr(checkpoint, "save", dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", pool, **again)
    monkeypatch.undo()
    assert run(tmp_path / "killed", pool, **again).manifest["files"] == whole.manifest["files"]
    assert not (tmp_path / "killed" / "parts" / "rows").exists()


def test_both_are_learnt(tmp_path, pool):
    before = backbone("compact")
    rows = [before.render(sample) for sample in samples()]
    artifact = run(tmp_path / "out", pool, steps=60, joint=JointConfig(vqa_ratio=1.0, vqa_weight=1.0), lr=3e-3)
    after = open_policy(artifact.path).backbone
    with torch.no_grad():
        losses = [float(model.loss(model.collate(rows))) for model in (before, after)]
    assert losses[1] < 0.6 * losses[0]
    curve = json.loads(artifact.file("curve.json").read_text())["loss"]
    assert np.mean(curve[-5:]) < 0.6 * np.mean(curve[:5])


def test_settings_that_cannot_be_meant_are_refused(tmp_path, pool):
    with pytest.raises(ValueError, match=r"is 2\.4 samples"):
        JointConfig(vqa_ratio=0.3).samples(8)
    with pytest.raises(ValueError, match="weight above 0"):
        JointConfig(vqa_weight=0.0).samples(8)
    with pytest.raises(ValueError, match="leave the image-text samples out"):
        run(tmp_path / "out", pool, mode="frozen")
