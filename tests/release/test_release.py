import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForImageTextToText, AutoProcessor

from embodied_midtrain.artifacts import Artifact, Skips, StageError
from embodied_midtrain.cli import main
from embodied_midtrain.diagnostics.drift import DriftConfig, drift
from embodied_midtrain.diagnostics.retention import RetentionConfig, retention
from embodied_midtrain.midtraining.midtrain import MidtrainConfig, midtrain
from embodied_midtrain.policies.finetune import FinetuneConfig, finetune
from embodied_midtrain.release.card import Told, write_card
from embodied_midtrain.release.export import export_model, files_of
from embodied_midtrain.sources.opening import open_pool
from tests.midtraining.test_midtrain import SMALL, make_pool, samples, select
from tests.policies.test_finetune import SMALL as SMALL_POLICY
from tests.release.hub import TOKEN, hub
from tests.tiny import Dots, backbone


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A mid-trained tiny SmolVLM with what a card is written from."""
    folder = tmp_path_factory.mktemp("made")
    rows = samples()
    pool, selection = make_pool(folder / "pool", rows), select(folder / "selection", rows)
    model = backbone("idefics3")
    artifact = midtrain(folder / "mid", MidtrainConfig(**SMALL), backbone=model, pool=pool, selection=selection)
    return artifact, pool, _whole(selection)


def _whole(selection):
    path = selection.file("manifest.json")
    manifest = json.loads(path.read_text())
    manifest["config"] = {"selector": "estimator", "seed": 0}
    manifest["counts"] = {"selected": 12, "pool": 12, "skipped": {}}
    path.write_text(json.dumps(manifest))
    return Artifact.open(selection.path)


def test_the_card_says_what_the_artifacts_know(made, tmp_path):
    artifact, pool, selection = made
    opened = open_pool(pool, skips=Skips())
    base = backbone("idefics3")
    moved = drift(tmp_path / "drift", DriftConfig(rows=12), base=base, model=base, pool=opened)
    base.save(tmp_path / "base")
    config = RetentionConfig(captions=("books", "charts"), ocr=(), charts=(), spatial=(), questions=12, choices=3)
    kept = retention(
        tmp_path / "kept", config, before=str(tmp_path / "base"), after=[str(artifact.file("model"))], pool=opened
    )
    told = Told(
        base="HuggingFaceTB/SmolVLM2-256M", licence="apache-2.0", pool=str(pool), selection=selection, drift=moved,
        retention=kept,
    )  # fmt: skip
    card = write_card(artifact, told, title="small")
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == "HuggingFaceTB/SmolVLM2-256M" and front["license"] == "apache-2.0"
    assert front["library_name"] == "transformers"
    row = artifact.counts["composition"]["charts"]
    assert f"| charts | 8 | {row['drawn']} | {row['realised']:.1%} | unknown (8) |" in card
    assert "24 samples" in card and "| lr | 0.01 |" in card and "AutoModelForImageTextToText" in card
    assert "Relative distance of the weights: vision 0.0000" in card
    assert "| captions (12, " in card and artifact.manifest["packages"]["torch"] in card
    losses = json.loads(artifact.file("curve.json").read_text())["loss"]
    assert f"{losses[0]:.3f} (mean of the first 1) to {losses[-1]:.3f}" in card
    unsaid = write_card(artifact, Told(), title="small")
    assert f"(`{artifact.counts['base']}`)" in unsaid and "base_model" not in unsaid
    # Nothing of this machine.
    assert str(tmp_path) not in card and str(Path.home()) not in card


def test_what_does_not_belong_to_it_is_refused(made, tmp_path):
    artifact, pool, selection = made
    with pytest.raises(StageError, match="need the selection too"):
        write_card(artifact, Told(pool=str(pool)), title="x")
    other = _whole(select(tmp_path / "other", samples()[:3]))
    with pytest.raises(StageError, match="is not the selection that"):
        write_card(artifact, Told(pool=str(pool), selection=other), title="x")
    with pytest.raises(StageError, match="give an 'emt midtrain' or 'emt finetune' folder"):
        export_model(tmp_path / "out", selection, Told())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    for taken in ("full", "full/mine.txt"):
        with pytest.raises(StageError, match="is not an empty folder"):
            export_model(tmp_path / taken, artifact, Told())


def test_transformers_alone_loads_an_exported_backbone(made, tmp_path):
    artifact, _, _ = made
    assert main(["export", "model", "--made", str(artifact.path), "--base", "x/y", "--out", str(tmp_path / "out")]) == 0
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    ours = artifact.file("model/model.safetensors").read_bytes()
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == ours
    text = processor(text="<|im_start|>user:hello<|im_end|>", return_tensors="pt")
    assert torch.isfinite(model(**text).logits).all()


def test_a_policy_comes_with_its_card(tmp_path):
    finetune(tmp_path / "policy", FinetuneConfig(**SMALL_POLICY), backbone=backbone("idefics3"), demos=Dots())
    out = export_model(tmp_path / "out", Artifact.open(tmp_path / "policy"), Told(licence="mit"))
    card = (out / "README.md").read_text()
    assert "3 actions out, of which 2 are to be executed" in card and "+1 closes the gripper" in card
    assert "| gripper | -1 | 1 |" in card
    names = [str(path.relative_to(out)) for path in files_of(out)]
    assert {"README.md", "policy.json", "head.safetensors", "backbone/config.json"} <= set(names)
    (out / "head.safetensors").unlink()
    with pytest.raises(StageError, match=r"a policy without head\.safetensors"):
        files_of(out)


@pytest.fixture
def exported(made, tmp_path):
    return export_model(tmp_path / "exported", made[0], Told(base="x/y"))


def push(folder, name, *more, endpoint="http://127.0.0.1:9", token=TOKEN, home):
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home)}
    environment.pop("HF_TOKEN", None)
    environment |= {"HF_TOKEN": token} if token else {}
    words = [sys.executable, "-m", "embodied_midtrain.cli", "push", str(folder), name, *more]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)


def test_push_sends_the_folder_to_the_hub(exported, tmp_path):
    (exported / ".git").mkdir()
    (exported / ".git" / "config").write_text("secret")
    with hub() as (endpoint, kept):
        done = push(exported, "me/small", endpoint=endpoint, home=tmp_path)
        again = push(exported, "me/small", endpoint=endpoint, home=tmp_path)
        stranger = push(exported, "me/small", endpoint=endpoint, token="hf_wrong", home=tmp_path)
    assert done.returncode == 0 and again.returncode == 0, done.stderr + again.stderr
    assert f"{endpoint}/me/small/commit/1" in done.stdout
    sent = kept.repos["me/small"]
    assert {"README.md", "config.json", "model.safetensors"} <= set(sent) and not any(".git" in name for name in sent)
    assert sent["model.safetensors"] == (exported / "model.safetensors").read_bytes()
    assert kept.private["me/small"] is True
    assert stranger.returncode == 1 and "the hub did not take me/small" in stranger.stderr
    assert "Traceback" not in stranger.stderr
    # The token is nowhere: not in what is printed, not in what was sent or left behind.
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert TOKEN not in done.stdout + done.stderr and TOKEN.encode() not in written + b"".join(sent.values())


def test_push_shows_first_and_refuses_what_should_not_go(exported, tmp_path, capsys):
    shown = push(exported, "me/small", "--dry-run", token=None, home=tmp_path)
    assert (
        shown.returncode == 0
        and "model.safetensors" in shown.stdout
        and "would go to me/small (private)" in shown.stdout
    )
    assert "# exported" in shown.stdout
    bare = push(exported, "me/small", token=None, home=tmp_path)
    assert bare.returncode == 1 and "no token for the hub" in bare.stderr
    for name in ("small", "../me/small", "me/sm all"):
        assert main(["push", str(exported), name, "--dry-run"]) == 1
        assert "OWNER/NAME" in capsys.readouterr().err
    (exported / "code.py").touch()
    assert main(["push", str(exported), "me/small", "--dry-run"]) == 1
    assert "run code" in capsys.readouterr().err
    (exported / "code.py").unlink()
    (exported / "README.md").unlink()
    assert main(["push", str(exported), "me/small", "--dry-run"]) == 1
    assert "has no README.md" in capsys.readouterr().err
