"""The stage: one pool of all domains, the split, resuming, user pools, bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from embodied_midtrain.artifacts import Artifact, ArtifactMismatch, Skips, StageError, read_json
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.capabilities import filling, make
from embodied_midtrain.capabilities.make import SUMMARY, CapabilityConfig, capability
from embodied_midtrain.capabilities.splits import HELD_OUT, split_of
from embodied_midtrain.coupled.couple import read_facts
from embodied_midtrain.midtraining.midtrain import MidtrainConfig, midtrain
from embodied_midtrain.robots.actions import ActionNormaliser
from embodied_midtrain.sources.opening import open_pool
from tests.coupled.made import as_traces, several, without
from tests.midtraining.test_midtrain import FROZEN_VISION
from tests.tiny import Dots, backbone

TOLD = ("plan", "egocentric", "temporal", "action")
TRAIN = CapabilityConfig(domains=TOLD, budget=122)


@pytest.fixture(scope="module")
def given():
    """24 episodes with their truth, three of them held out, and other episodes with actions."""
    return {"episodes": as_traces(several(24)), "robots": Dots(20)}


@pytest.fixture(scope="module")
def made(given, tmp_path_factory):
    out = tmp_path_factory.mktemp("made")
    held_out = CapabilityConfig(domains=TOLD, budget=40, split="held-out")
    return capability(out / "train", TRAIN, **given), capability(out / "held-out", held_out, **given)


def _content(path):
    return [(s.key, s.turns, [p.read() for p in s.pictures]) for s in open_pool(path, skips=Skips())]


def test_even_by_domain_and_its_facts_beside_it(made):
    train, _ = made
    samples = list(open_pool(train.path, skips=Skips()))
    assert Counter(s.source for s in samples) == {"plan": 31, "egocentric": 31, "temporal": 30, "action": 30}
    assert len({s.key for s in samples}) == len(samples) == train.counts["used"]
    facts = {(row["source"], row["id"]): row for row in read_facts(train.path)}
    assert {s.key for s in samples} == facts.keys()
    assert all(s.answer == facts[s.key]["answer"] and s.turns[0].text == facts[s.key]["question"] for s in samples)
    summary = read_json(train.file(SUMMARY))
    assert summary["plan"]["wanted"] == summary["plan"]["samples"] == 31
    assert summary["plan"]["kinds"]["done"]["questions"] == train.counts["kinds"]["plan"]["done"]
    assert all(0 <= row["majority"] <= 1 for domain in summary.values() for row in domain["baselines"].values())
    numbers = [s.answer.replace(";", "").split() for s in samples if s.source == "action"]
    commonest = [max(map(list(place).count, place)) / 30 for place in zip(*numbers, strict=True)]
    assert summary["action"]["baselines"]["action"]["majority"] == pytest.approx(np.mean(commonest), abs=1e-4)
    assert summary["temporal"]["left_out"]["order"]["two pictures hardly differ"] > 0


def test_splits_share_no_episode(made):
    episodes = [{row["episode"] for row in read_facts(artifact.path)} for artifact in made]
    assert episodes[0] and episodes[1] and not episodes[0] & episodes[1]
    assert {split_of(name) for name in episodes[0]} == {"train"}
    names = [f"scene-{number}" for number in range(4000)]
    share = np.mean([split_of(name) == "held-out" for name in names])
    assert abs(share - HELD_OUT) < 0.03


def test_actions_are_those_that_follow_in_the_numbers_of_training(made, given):
    episodes = {episode.id: episode for episode in given["robots"]}
    train = [episode.actions for episode in episodes.values() if split_of(episode.id) == "train"]
    low, high = np.quantile(np.concatenate(train), [0.01, 0.99], axis=0)
    normaliser = ActionNormaliser.fit(train)
    for artifact in made:
        rows = [row for row in read_facts(artifact.path) if row["source"] == "action"]
        assert len(rows) >= 10
        # Which recording: another one of the same tasks has episodes of the same names.
        assert all(row["id"].startswith(f"{given['robots'].fingerprint()[:8]}/") for row in rows)
        for row in rows:
            actions, step = episodes[row["episode"]].actions, row["step"]
            said = np.array([[int(n) for n in one.split()] for one in row["answer"].split("; ")])
            assert said.shape == (8, 3)
            wanted = actions[np.minimum(np.arange(step, step + 8), len(actions) - 1)]
            back = normaliser.invert(((said + 0.5) / 256 * 2 - 1).astype(np.float32))
            assert (np.abs(back - np.clip(wanted, low, high)) <= (high - low) / 256 + 2e-3).all()


def test_a_killed_run_goes_on_and_gives_the_same(made, given, tmp_path, monkeypatch):
    whole, _ = made
    committed = filling.Filling._commit

    def killed(self, name, samples, mark):
        if name.startswith("actions"):
            raise KeyboardInterrupt
        return committed(self, name, samples, mark)

    monkeypatch.setattr(filling.Filling, "_commit", killed)
    with pytest.raises(KeyboardInterrupt):
        capability(tmp_path / "out", TRAIN, **given)
    done = (tmp_path / "out" / "looks-000000.parquet").stat().st_mtime_ns
    monkeypatch.undo()
    resumed = capability(tmp_path / "out", TRAIN, **given)
    assert (tmp_path / "out" / "looks-000000.parquet").stat().st_mtime_ns == done
    assert resumed.fingerprint == whole.fingerprint and _content(resumed.path) == _content(whole.path)
    assert capability(tmp_path / "out", TRAIN, **given).fingerprint == resumed.fingerprint
    with pytest.raises(ArtifactMismatch, match="budget"):
        capability(tmp_path / "out", CapabilityConfig(domains=TOLD, budget=50), **given)


def test_more_wanted_than_there_is(given, tmp_path, capsys, monkeypatch):
    config = CapabilityConfig(domains=("plan",), budget=5000)
    monkeypatch.setattr(make, "open_traces", lambda *_: given["episodes"])
    monkeypatch.setattr(make, "open_robots", lambda *_: given["robots"])
    make.capability_command(tmp_path / "out", config, demos=tmp_path)
    said = capsys.readouterr().out
    summary = read_json(tmp_path / "out" / SUMMARY)["plan"]
    assert summary["wanted"] == 5000 > summary["samples"] > 100
    assert "5000 wanted: 'emt compose' repeats samples" in said


def test_a_domain_that_gives_nothing(tmp_path, capsys, monkeypatch):
    placeless = as_traces([without(trace, place=None) for trace in several(4)])
    monkeypatch.setattr(make, "open_traces", lambda *_: placeless)
    monkeypatch.setattr(make, "open_robots", lambda *_: Dots(20))
    both = CapabilityConfig(domains=("egocentric", "temporal"), budget=8)
    make.capability_command(tmp_path / "both", both, demos=tmp_path)
    (said,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("temporal"))
    assert said.split(maxsplit=1)[1] == "0 samples, nothing; 4 wanted"
    with pytest.raises(StageError, match=r"no question can be asked \(.*place of the gripper not known.*--truth-every"):
        capability(tmp_path / "one", CapabilityConfig(domains=("temporal",)), episodes=placeless)


def test_actions_need_no_truth(given, tmp_path, monkeypatch):
    monkeypatch.delattr(make, "open_traces")

    def read(_, skips):
        skips.add("bad actions", "demo_0")
        return given["robots"]

    monkeypatch.setattr(make, "open_robots", read)
    make.capability_command(tmp_path / "out", CapabilityConfig(domains=("action",), budget=9), demos=tmp_path)
    assert len(list(open_pool(tmp_path / "out", skips=Skips()))) == 9
    assert Artifact.open(tmp_path / "out").counts["skipped"] == {"bad actions": 1}


def test_a_backbone_is_trained_on_all_of_it(made, tmp_path):
    """Questions about one picture and about several, in one mixture of domains."""
    config = MidtrainConfig(**FROZEN_VISION, weights={"temporal": 2.0, "egocentric": 1.0, "action": 1.0})
    trained = midtrain(tmp_path / "out", config, backbone=backbone("compact"), pool=made[0].path)
    assert load_backbone(trained.file("model"))


def test_a_pool_of_your_own_stands_for_a_domain(tmp_path):
    rows = [
        {"id": f"{n}-{k}", "image": f"{n}.png", "question": f"Q{k}?", "answer": f"A{n}"}
        for n in range(40)
        for k in range(2)
    ]
    for n in range(40):
        Image.new("RGB", (8, 8), (n, 0, 0)).save(tmp_path / f"{n}.png")
    own = tmp_path / "refcoco.json"
    own.write_text(json.dumps([*rows, {**rows[0], "id": "gone", "image": "gone.png"}]))
    sides = {}
    for split in ("train", "held-out"):
        config = CapabilityConfig(domains=("grounding",), budget=1000, split=split)
        artifact = capability(tmp_path / split, config, pools={"grounding": own})
        samples = list(open_pool(artifact.path, skips=Skips()))
        assert {s.source for s in samples} == {"grounding"} and artifact.counts["skipped"] == {"missing image": 1}
        sides[split] = {s.id: s.answer for s in samples}
    assert len(sides["train"]) + len(sides["held-out"]) == 80
    shown = {split: set(answers.values()) for split, answers in sides.items()}
    assert shown["held-out"] and not shown["train"] & shown["held-out"], "a picture is on one side only"
    few = CapabilityConfig(domains=("grounding",), budget=7)
    assert capability(tmp_path / "few", few, pools={"grounding": own}).counts["used"] == 7
    own.write_text(json.dumps([{**rows[0], "image": "gone.png"}]))
    with pytest.raises(StageError, match=r"json has no sample of the split train \(skipped: 1 missing image\)"):
        capability(tmp_path / "none", few, pools={"grounding": own})


def test_what_cannot_be_made(tmp_path, given):
    with pytest.raises(StageError, match=r"plan, temporal: made of robot episodes, give --demos.*--truth-every"):
        capability(tmp_path / "a", CapabilityConfig(domains=("plan", "temporal")), robots=given["robots"])
    bare = as_traces([], "bare")
    bare.skips.add("no truth", "demo_0")
    with pytest.raises(StageError, match=r"no episode of bare says what is true of it \(1 no truth\).*--truth-every"):
        capability(tmp_path / "b", CapabilityConfig(domains=("plan",)), episodes=bare)
    few = CapabilityConfig(domains=("plan",), split="held-out")
    with pytest.raises(StageError, match="none of the 2 episodes of made is of the split held-out"):
        capability(tmp_path / "c", few, episodes=as_traces(several(2)))
    untaught = Dots(20)
    untaught.episodes = [episode for episode in untaught.episodes if split_of(episode.id) == "held-out"]
    with pytest.raises(StageError, match="no episode to train on"):
        capability(tmp_path / "g", CapabilityConfig(domains=("action",), split="held-out"), robots=untaught)
    for wrong, said in (
        (CapabilityConfig(domains=("spacial",)), "did you mean 'spatial'"),
        (CapabilityConfig(domains=("plan", "plan")), "named twice"),
        (CapabilityConfig(budget=0), "at least"),
    ):
        with pytest.raises(ValueError, match=said):
            capability(tmp_path / "d", wrong, **given)
    with pytest.raises(ValueError, match="no such domain is asked for"):
        capability(tmp_path / "e", CapabilityConfig(domains=("plan",)), **given, pools={"spatial": tmp_path})


def test_without_rendering_it_says_what_to_install(tmp_path):
    words = ("--out", str(tmp_path / "out"), "--domains", "camera", "--budget", "4", "--cache", str(tmp_path))
    # OSMesa is not installed: for MuJoCo the same as a machine without EGL.
    environment = {**os.environ, "MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "osmesa"}
    call = [sys.executable, "-m", "embodied_midtrain.cli", "capability", *words]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "apt-get install libegl1" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
