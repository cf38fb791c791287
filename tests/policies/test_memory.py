"""Fine-tuning says what it takes before it starts, and refuses what does not fit."""

import pytest
import torch

from embodied_midtrain.artifacts import StageError, read_json
from embodied_midtrain.backbones.memory import MemoryEstimate
from embodied_midtrain.midtraining import room
from tests.policies.test_finetune import run


def told(capsys):
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("memory: about"))
    return line


def test_a_training_that_does_not_fit_is_not_started(tmp_path, monkeypatch, capsys):
    # The tiny backbone's weights, gradients and moments take more than a MiB.
    monkeypatch.setattr(room, "there_is", lambda device: 2**20)
    with pytest.raises(StageError, match=r"(?s)would be needed, so this is not started.*optimiser.*micro_batch"):
        run(tmp_path / "out")
    monkeypatch.undo()
    run(tmp_path / "out")
    kept = read_json(tmp_path / "out" / "logs" / "memory.json")
    assert "GiB" in told(capsys) and kept["total"] > 2**20
    # Of this process, which holds torch at least; a GPU's memory has no libraries in it.
    assert kept["process"] > 100 * 2**20
    found = MemoryEstimate(1, 2, 3, 4, 5, 6)
    assert room.in_this_process(found, torch.device("cuda")) == found


def test_what_learns_and_what_a_step_holds_count(tmp_path, monkeypatch):
    seen = []
    real = room.refuse_too_large
    monkeypatch.setattr(
        "embodied_midtrain.policies.queried.refuse_too_large",
        lambda estimate, *rest: seen.append(estimate) or real(estimate, *rest),
    )
    run(tmp_path / "full", micro_batch=8)
    run(tmp_path / "few", micro_batch=2)
    run(tmp_path / "lora", micro_batch=8, mode="lora", lora_rank=4)
    full, few, lora = seen
    assert few.activations == full.activations // 4 and few.weights == full.weights
    assert lora.gradients < full.gradients / 2 and lora.optimiser < full.optimiser / 2
