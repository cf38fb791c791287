"""The example reader of docs/export.md gives the package's own answer, and imports nothing of the package."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from embodied_midtrain.artifacts import Artifact
from embodied_midtrain.policies.finetune import FinetuneConfig, finetune
from embodied_midtrain.policies.opening import load_actor
from embodied_midtrain.release.card import Told
from embodied_midtrain.release.export import export_model
from tests.policies.test_finetune import SMALL
from tests.tiny import Dots, backbone

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "load_policy.py"


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_it_says_what_the_policy_says(tmp_path, mode, monkeypatch):
    rank = {"lora_rank": 4, "train": ("connector", "language")} if mode == "lora" else {}
    config = FinetuneConfig(**{**SMALL, "mode": mode, **rank})
    finetune(tmp_path / "made", config, backbone=backbone("smolvlm"), demos=Dots())
    folder = export_model(tmp_path / "out", Artifact.open(tmp_path / "made"), Told())
    spec = importlib.util.spec_from_file_location("load_policy", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    frame = np.ascontiguousarray(Dots(side=40).episodes[1].frames[2])
    # In full precision on both sides, whatever the processor multiplies quickly.
    monkeypatch.setattr("embodied_midtrain.policies.policy.pick_precision", lambda *_: torch.float32, raising=False)
    ours = load_actor(folder).act(frame[None], ["move left"])[0]
    theirs = example.Policy(folder).act(Image.fromarray(frame), "move left").numpy()
    assert theirs.shape == (3, 3) and np.allclose(ours, theirs, atol=1e-4)
    assert "embodied_midtrain" not in EXAMPLE.read_text()
