import contextlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from embodied_midtrain.artifacts import Artifact, StageError, open_stage
from embodied_midtrain.training import checkpoint
from embodied_midtrain.training.loop import CHECKPOINTS, Loss, Optimisation, Trainee, train, train_mode

SCRIPT = Path(__file__).with_name("tiny_run.py")


def start(folder, seconds):
    return subprocess.Popen([sys.executable, SCRIPT, str(folder), "30", str(seconds)], stderr=subprocess.DEVNULL)


def test_a_killed_run_ends_with_the_same_bytes_as_one_left_alone(tmp_path):
    assert start(tmp_path / "whole", 0).wait() == 0
    process = start(tmp_path / "killed", 0.05)
    # On a busy machine the imports alone take a minute.
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        found = checkpoint.latest(tmp_path / "killed" / CHECKPOINTS)
        if found is not None and int(found.name[5:]) >= 7:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    reached = int(checkpoint.latest(tmp_path / "killed" / CHECKPOINTS).name[5:])
    assert 7 <= reached < 30
    assert start(tmp_path / "killed", 0).wait() == 0

    whole, killed = Artifact.open(tmp_path / "whole"), Artifact.open(tmp_path / "killed")
    assert whole.manifest["files"] == killed.manifest["files"]
    assert whole.fingerprint == killed.fingerprint
    assert len(json.loads(killed.file("curve.json").read_text())["loss"]) == 30
    assert not (killed.path / CHECKPOINTS).exists()


def line(folder, losses, **settings):
    """A run of y = w x towards y = 3 x."""
    weight = nn.Parameter(torch.zeros(1))
    config = Optimisation(**{"steps": 40, "batch": 4, "lr": 0.3, "precision": "fp32", **settings})
    run = open_stage(folder, "line", config, {})
    trainee = Trainee({"w": weight}, lambda step: losses(step, weight), lambda step: f"sample s{step}")
    return run, weight, trainee, config


def test_training_learns_and_accumulation_equals_one_large_batch(tmp_path):
    data = torch.tensor([1.0, 2.0, -1.0, 0.5])

    def whole(step, w):
        yield Loss((w * data - 3 * data).square().mean(), 4)

    def halves(step, w):
        for half in data.split(2):
            yield Loss((w * half - 3 * half).square().mean() / 2, 2)

    run, one, trainee, config = line(tmp_path / "a", whole)
    losses = train(run, trainee, config, "line")
    assert losses[-1] < 0.01 * losses[0]
    run, two, trainee, config = line(tmp_path / "b", halves)
    assert train(run, trainee, config, "line") == pytest.approx(losses, rel=1e-4)
    assert one.item() == pytest.approx(two.item(), rel=1e-4)
    assert len((tmp_path / "a" / "logs" / "train.jsonl").read_text().splitlines()) == 40


def test_a_nan_stops_names_the_batch_and_keeps_the_state_before_it(tmp_path):
    def losses(step, w):
        yield Loss((w - 3).square().sum() * (float("nan") if step == 5 else 1.0), 1)

    run, weight, trainee, config = line(tmp_path, losses)
    with pytest.raises(StageError, match=r"loss of step 5 is nan.*sample s5"):
        train(run, trainee, config, "line")
    found = checkpoint.latest(tmp_path / CHECKPOINTS)
    assert found.name == "step-00000005"
    kept = weight.item()
    assert 0 < kept < 3
    state = checkpoint.Trained(trainee.weights, torch.optim.AdamW([weight], fused=True))
    step, values = checkpoint.restore(found, state)
    assert (step, len(values), weight.item()) == (5, 5, kept)


def test_a_gradient_without_end_stops_like_a_nan(tmp_path):
    def losses(step, w):
        # Finite at 0, where its slope is not.
        yield Loss(w.abs().sqrt().sum() + 1.0, 1, what="sample s0")

    run, weight, trainee, config = line(tmp_path, losses)
    with pytest.raises(StageError, match=r"loss of step 0 is 1\.0 \(gradient norm (nan|inf)\) on sample s0"):
        train(run, trainee, config, "line")
    assert weight.item() == 0.0 and checkpoint.latest(tmp_path / CHECKPOINTS).name == "step-00000000"


def test_what_makes_data_ready_is_ended_however_it_ends(tmp_path):
    ended = []

    def losses(step, w):
        yield Loss((w - 3).square().sum() * (float("nan") if step == 2 else 1.0), 1)

    for steps, name in ((2, "whole"), (4, "stopped")):
        run, _, trainee, config = line(tmp_path / name, losses, steps=steps)
        trainee = replace(trainee, close=lambda name=name: ended.append(name))
        with contextlib.suppress(StageError):
            train(run, trainee, config, "line")
    assert ended == ["whole", "stopped"]


def test_the_logged_norm_is_the_one_before_clipping(tmp_path):
    def losses(step, w):
        yield Loss(1e6 * (w - 3).square().sum(), 1)

    run, _, trainee, config = line(tmp_path, losses, steps=1, clip=0.5)
    train(run, trainee, config, "line")
    record = json.loads((tmp_path / "logs" / "train.jsonl").read_text())
    assert record["norm"] == pytest.approx(6e6)


def test_floor_and_betas_are_those_of_the_training(tmp_path):
    def losses(step, w):
        yield Loss((w - 3).square().sum(), 1)

    found = {}
    for name, settings in {"plain": {}, "floor": {"lr_floor": 0.5}, "betas": {"betas": (0.0, 0.5)}}.items():
        # Clipped gradients would all be equal, and then betas are nothing to AdamW.
        run, weight, trainee, config = line(tmp_path / name, losses, steps=10, clip=1e9, **settings)
        train(run, trainee, config, "line")
        lines = (tmp_path / name / "logs" / "train.jsonl").read_text().splitlines()
        found[name] = json.loads(lines[-1])["lr"], float(weight)
    assert found["plain"][0] < 0.03 and 0.15 < found["floor"][0] < 0.17
    assert found["betas"][0] == found["plain"][0] and found["betas"][1] != pytest.approx(found["plain"][1], rel=1e-3)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([weight])
    path = checkpoint.save(tmp_path, 1, checkpoint.Trained({"w": weight}, optimizer), [0.5])
    with pytest.raises(StageError, match="another model"):
        checkpoint.restore(path, checkpoint.Trained({"v": weight}, optimizer))
    (path / "weights.safetensors").write_bytes(b"broken")
    with pytest.raises(StageError, match="damaged"):
        checkpoint.restore(path, checkpoint.Trained({"w": weight}, optimizer))


def test_the_older_checkpoint_goes_only_after_the_newer_is_complete(tmp_path, monkeypatch):
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([weight])
    state = checkpoint.Trained({"w": weight}, optimizer)
    first = checkpoint.save(tmp_path, 1, state, [0.5])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(StageError, match="no space left"):
        checkpoint.save(tmp_path, 2, state, [0.5, 0.4])
    assert checkpoint.latest(tmp_path) == first
    monkeypatch.undo()
    assert checkpoint.save(tmp_path, 2, state, [0.5, 0.4]) == checkpoint.latest(tmp_path)
    assert not first.exists()


def test_settings_that_cannot_be_meant_are_refused():
    with pytest.raises(ValueError, match="steps is 0"):
        Optimisation(steps=0).check()
    with pytest.raises(ValueError, match="above 0"):
        Optimisation(lr=0.0).check()
    for settings in ({"lr_floor": 1.5}, {"betas": (0.9, 1.0)}):
        with pytest.raises(ValueError, match=r"lr_floor .* is a share, and betas"):
            Optimisation(**settings).check()


def test_batch_norms_keep_their_pretrained_statistics():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5))
    train_mode(model)
    model[0](torch.randn(4, 2, 3, 3))
    assert model[1].training and not model[0].training
    assert model[0].running_mean.tolist() == [0.0, 0.0]
