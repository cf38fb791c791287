"""Influence on the action loss: what the score is, what is left out, and going on after a kill."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from embodied_midtrain.artifacts import Skips, StageError, read_json
from embodied_midtrain.features.extract import embed
from embodied_midtrain.features.extractor import EmbedConfig
from embodied_midtrain.proximity.gradients import Gradients
from embodied_midtrain.proximity.influence import ActionGradients, InfluenceConfig
from embodied_midtrain.proximity.score import ScoreConfig, score
from embodied_midtrain.proximity.select import read_selection, select
from embodied_midtrain.proximity.selectors import SelectConfig
from embodied_midtrain.robots.action_text import ActionTextConfig, action_samples, robots_as_text
from embodied_midtrain.robots.actions import ActionNormaliser
from embodied_midtrain.samples import question
from embodied_midtrain.sources.opening import open_pool
from tests.midtraining.small_pool import make_pool, picture, samples
from tests.proximity.test_score import rows_of
from tests.tiny import Dots, backbone

FAST = ScoreConfig(by="influence", part_size=5, batch_size=4, precision="fp32", workers=1)


@pytest.fixture
def pool(tmp_path):
    long = question("charts", "long", picture(99), "What?", "a" * 3000)
    return open_pool(make_pool(tmp_path / "pool", [*samples()[:6], long, *samples()[6:]]), skips=Skips())


def actions_of(robots):
    """Every frame as a sample, by task; episodes of the dots have eight."""
    normaliser = ActionNormaliser.fit([e.actions for e in robots])
    return {
        e.task: list(action_samples([e], ActionTextConfig(), normaliser, Skips()))
        for e in list(robots)[:2]  # One of each task is looked at, the first.
    }


def test_the_score_is_the_cosine_with_the_actions_gradient(tmp_path, pool):
    model = backbone("compact")
    config = replace(FAST, influence=InfluenceConfig(frames=8))
    artifact = score(tmp_path / "out", config, pool=pool, backbone=model, target=Dots(), max_bad=1.0)
    with Gradients(model, rank=8, last=1.0, seed=0, precision="fp32") as gradients:

        def unit(some):
            return F.normalize(torch.cat([gradients.of([model.render(s)], 1) for s in some]))

        means = F.normalize(torch.stack([unit(own).mean(0) for _, own in sorted(actions_of(Dots()).items())]))
        wanted = (unit(samples()) @ means.T).amax(1)
    found = rows_of(artifact)
    assert [i for _, i, _ in found] == [s.id for s in samples()]
    assert np.allclose([v for *_, v in found], wanted.numpy(), atol=1e-4)
    facts = read_json(tmp_path / "out" / "parts" / "target.json")
    assert facts["groups"] == ["left-v0", "right-v0"] and facts["frames"] == [8, 8]
    assert artifact.manifest["agreement"] == {"left-v0": 0.0, "right-v0": 0.0}  # One episode each: no halves.
    listed = (tmp_path / "out" / "skipped.jsonl").read_text()
    assert "charts/long" in listed and "too long" in listed


def test_training_on_what_scores_high_lowers_the_action_loss_more():
    model = backbone("compact")
    normaliser = ActionNormaliser.fit([e.actions for e in Dots()])
    told = list(action_samples(list(Dots()), ActionTextConfig(frames_per_episode=2), normaliser, Skips()))
    rng = np.random.default_rng(0)
    pool = [
        question("s", str(n), picture(n), "What?", "".join(rng.choice(list("0123456789 abcxyz"), 12)))
        for n in range(16)
    ]
    rows, wanted = [model.render(s) for s in pool], [model.render(s) for s in told]
    with Gradients(model, rank=16, last=1.0, seed=0, precision="fp32") as gradients:
        mean = F.normalize(F.normalize(gradients.of(wanted, 8)).mean(0, keepdim=True))
        scores = ActionGradients({"all": 1.0}, mean.numpy()).scores(gradients.of(rows, 8), "max")
    weights = [p for n, p in model.language.named_parameters() if "proj" in n]

    def action_loss():
        with torch.no_grad():
            return float(sum(model.loss(model.collate([row])) for row in wanted)) / len(wanted)

    before, gains = action_loss(), []
    for row in rows:
        loss = model.loss(model.collate([row]))
        steps = torch.autograd.grad(loss, weights)
        size = 1e-2 / float(torch.cat([g.flatten() for g in steps]).norm())
        with torch.no_grad():
            for weight, step in zip(weights, steps, strict=True):
                weight -= size * step
            gains.append(before - action_loss())
            for weight, step in zip(weights, steps, strict=True):
                weight += size * step
    ranks = [np.argsort(np.argsort(values)) for values in (scores, gains)]
    assert np.corrcoef(*ranks)[0, 1] > 0.7


def test_going_on_does_not_look_at_the_target_again(tmp_path, pool, monkeypatch):
    model = backbone("compact")
    settings = replace(FAST, influence=InfluenceConfig(frames=4, over="mean"))
    artifact = score(tmp_path / "out", settings, pool=pool, backbone=model, target=Dots(), max_bad=1.0)
    whole = artifact.manifest["files"]
    assert set(artifact.manifest["agreement"]) == {"left-v0", "right-v0"}
    artifact.file("part-000002.parquet").unlink()
    text = artifact.file("manifest.json").read_text().replace('"status": "done"', '"status": "running"')
    artifact.file("manifest.json").write_text(text)
    monkeypatch.setattr(Dots, "__iter__", lambda self: pytest.fail("the target was read again"))
    again = score(tmp_path / "out", settings, pool=pool, backbone=model, target=Dots(), max_bad=1.0)
    assert again.manifest["files"] == whole


def test_two_halves_of_a_target_that_says_one_thing_agree(tmp_path, pool):
    config = replace(FAST, influence=InfluenceConfig(frames=16))
    artifact = score(tmp_path / "out", config, pool=pool, backbone=backbone("compact"), target=Dots(), max_bad=1.0)
    assert min(artifact.manifest["agreement"].values()) > 0.5
    # Two tasks of one episode each in one group: each is a half.
    config = replace(FAST, influence=InfluenceConfig(frames=16, groups=1))
    more = {"pool": pool, "backbone": backbone("compact"), "target": Dots(episodes=2), "max_bad": 1.0}
    (halves,) = score(tmp_path / "together", config, **more).manifest["agreement"].values()
    assert halves != 0


def test_selecting_by_it(tmp_path, pool):
    model = backbone("compact")
    features = EmbedConfig(precision="fp32")
    near = embed(tmp_path / "near", features, backbone=model, pool=pool, max_bad=1.0)
    far = embed(tmp_path / "far", features, backbone=model, target=Dots())
    half = replace(FAST, precision="bf16")
    scores = score(tmp_path / "scores", half, pool=pool, backbone=model, target=Dots(), max_bad=1.0)
    chosen = select(tmp_path / "chosen", SelectConfig(k=5, selector="influence"), pool=near, target=far, scores=scores)
    best = sorted(rows_of(scores), key=lambda row: -row[2])[:5]
    assert read_selection(chosen) == [(s, i) for s, i, _ in best]
    with pytest.raises(StageError, match="influence needs --scores"):
        select(tmp_path / "none", SelectConfig(k=5, selector="influence"), pool=near, target=far)


def test_gradients_that_are_no_numbers_are_left_out(tmp_path, pool):
    unit = torch.eye(3)
    values = ActionGradients({"a": 1.0, "b": 1.0}, unit[:2].numpy()).scores(
        torch.stack([2 * unit[1], unit[0] + unit[1], torch.zeros(3), torch.full((3,), float("nan"))]), "max"
    )
    assert values[:2] == pytest.approx([1.0, 0.5**0.5]) and np.isnan(values[2:]).all()
    model = backbone("compact")
    with torch.no_grad():
        model.language.layers[0].mlp.up_proj.weight.fill_(float("nan"))
    with pytest.raises(StageError, match=r"no frame of dots gives a gradient.*nan gradient"):
        score(tmp_path / "out", FAST, pool=pool, backbone=model, target=Dots(), max_bad=1.0)


def test_a_target_of_another_action_spec_is_refused(tmp_path, pool):
    class Others(Dots):
        spec = replace(Dots.spec, gripper_closed=-1)

    model = backbone("compact")
    spoken = robots_as_text(tmp_path / "text", ActionTextConfig(bins=64), target=Dots())
    more = {"pool": pool, "backbone": model, "spoken": spoken, "max_bad": 1.0}
    assert score(tmp_path / "same", FAST, target=Dots(), **more).counts["used"] == 12
    with pytest.raises(StageError, match="gripper_closed"):
        score(tmp_path / "other", FAST, target=Others(), **more)
    with pytest.raises(ValueError, match="takes a backbone and a target"):
        score(tmp_path / "x", FAST, pool=pool, backbone=model)
    with pytest.raises(ValueError, match="takes no robot text"):
        score(tmp_path / "x", ScoreConfig(), pool=pool, backbone=model, spoken=spoken)
    for wrong in (
        InfluenceConfig(frames=0),
        InfluenceConfig(rank=0),
        InfluenceConfig(last=0.0),
        InfluenceConfig(last=2),
    ):
        with pytest.raises(ValueError, match="wanted at least 1"):
            score(tmp_path / "x", replace(FAST, influence=wrong), target=Dots(), **more)
    assert not (tmp_path / "x").exists()
