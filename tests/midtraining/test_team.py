"""Two processes on this machine's CPU train as one does, and go on after a kill with the same bytes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from embodied_midtrain.artifacts import Artifact
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.training import checkpoint
from embodied_midtrain.training.loop import CHECKPOINTS
from tests.midtraining.small_pool import make_pool, samples

ROOT = Path(__file__).parents[2]
SMALL = {"steps": 8, "batch": 6, "micro_batch": 2, "lr": 1e-2, "precision": "fp32", "device": "cpu"}
ALL = {**SMALL, "packing": "on", "ema": 0.9, "method": "lora", "lora_rank": 4}


def start(processes, pool, out, settings, *, sharded=False):
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    script = ["-m", "tests.midtraining.team_run", str(pool), str(out), json.dumps(settings)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_FSDP": str(sharded).lower()}
    return subprocess.Popen(
        [sys.executable, *launcher, *script],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def go(*given, **more):
    process = start(*given, **more)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said.decode()[-3000:]


def die(processes, pool, out, settings, **more):
    """The same run, killed after its third step."""
    process = start(processes, pool, out, {**settings, "die_after": 3}, **more)
    process.communicate(timeout=240)
    assert process.returncode != 0
    assert checkpoint.latest(out / CHECKPOINTS).name == "step-00000003"


@pytest.fixture
def pool(tmp_path):
    # Two without a picture: a process may then have none for the vision part.
    rows = samples()
    for n in (3, 8):
        rows[n] = type(rows[n])(rows[n].source, rows[n].id, (), rows[n].turns)
    return make_pool(tmp_path / "pool", rows)


def result(folder):
    artifact = Artifact.open(folder)
    curve = json.loads(artifact.file("curve.json").read_text())["loss"]
    return artifact, curve, load_backbone(artifact.file("model")).base.state_dict()


def same(folder, other):
    """Losses within 1e-4, weights within 1e-3 of what Adam at this rate may move them: sums are of another order."""
    one, two = result(folder), result(other)
    assert two[1] == pytest.approx(one[1], rel=1e-4)
    for name, tensor in one[2].items():
        torch.testing.assert_close(two[2][name], tensor, rtol=1e-3, atol=1e-3)
    # Each made its own tiny model, in a folder of another name.
    assert {**two[0].counts, "base": ""} == {**one[0].counts, "base": ""}


@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp"])
def test_two_processes_equal_one(tmp_path, pool, sharded):
    settings = {**SMALL, "packing": "on"} if sharded else SMALL
    go(1, pool, tmp_path / "one", settings)
    go(2, pool, tmp_path / "two", settings, sharded=sharded)
    same(tmp_path / "one", tmp_path / "two")
    team = json.loads((tmp_path / "two" / "logs" / "team.json").read_text())
    assert team["processes"] == 2 and team["split"] == (team["weights"] if sharded else 0)


@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp"])
def test_killed_teams_go_on_and_end_with_the_same_bytes(tmp_path, pool, sharded):
    settings = {**ALL, "save_seconds": 0.0}
    go(2, pool, tmp_path / "whole", settings, sharded=sharded)
    die(2, pool, tmp_path / "killed", settings, sharded=sharded)
    go(2, pool, tmp_path / "killed", settings, sharded=sharded)
    whole, killed = Artifact.open(tmp_path / "whole"), Artifact.open(tmp_path / "killed")
    assert whole.manifest["files"] == killed.manifest["files"]


def test_a_team_goes_on_with_what_one_process_began(tmp_path, pool):
    settings = {**SMALL, "ema": 0.9, "save_seconds": 0.0}
    die(1, pool, tmp_path / "mixed", settings)
    go(2, pool, tmp_path / "mixed", settings)
    go(1, pool, tmp_path / "one", settings)
    same(tmp_path / "one", tmp_path / "mixed")


def test_a_nan_of_one_process_stops_all_and_keeps_the_state_before_it(tmp_path, pool):
    process = start(2, pool, tmp_path / "out", {**SMALL, "spoil": [1, 3]})
    _, said = process.communicate(timeout=240)
    assert process.returncode != 0
    # Both say the two of its micro-batch, not all of the step.
    words = r"the loss of step 3 is nan \(gradient norm nan\) on samples \w+/\d+, \w+/\d+\. The state"
    assert re.search(words, said.decode()), said.decode()[-3000:]
    assert checkpoint.latest(tmp_path / "out" / CHECKPOINTS).name == "step-00000003"
