import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from embodied_midtrain.artifacts import ArtifactMismatch
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.compact import check, fit, lessons, train
from embodied_midtrain.backbones.compact.gaze import Gaze
from embodied_midtrain.backbones.compact.general import Thing, clean_label
from embodied_midtrain.backbones.compact.settings import TrainConfig
from embodied_midtrain.backbones.compact.words import align, find, word_vectors
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.samples import REGION_MARK, Region, Turn
from tests import tiny
from tests.backbones.compact.pictures import things

CONFIG = TrainConfig(scenes=30, photos=4, labelled=12, steps=6, batch_size=2, word_steps=3, save_every=2, rank=2)


class Killed(BaseException):
    """As sudden as a signal, for a process that must live on."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny model and made-up pictures in place of the real ones; the training itself is the real one."""
    monkeypatch.setattr(train, "compact_folder", lambda settings, trained: tiny.folder("compact"))
    monkeypatch.setattr(train, "things", lambda owner, cache: things()[:8])
    monkeypatch.setattr(
        train, "cifar", lambda owner, cache, limit: [replace(t, source="cifar10") for t in things()[8:]]
    )
    monkeypatch.setattr(train, "scene_parts", lambda backbone, found: list(found))
    monkeypatch.setattr(lessons, "prose", lambda: itertools.repeat("Words and words.", 3))
    monkeypatch.setattr(train, "check", lambda backbone, config: {})
    monkeypatch.setattr(train, "CHUNK", 16)


@pytest.mark.usefixtures("small")
def test_a_killed_training_ends_like_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train.train(CONFIG, tmp_path / "whole")
    rate = fit._rate

    def dying(step: int, config: TrainConfig) -> float:
        if step == 5:
            raise Killed
        return rate(step, config)

    with monkeypatch.context() as patch:
        patch.setattr(fit, "_rate", dying)
        with pytest.raises(Killed):
            train.train(CONFIG, tmp_path / "killed")
    assert (tmp_path / "killed" / "checkpoint.pt").is_file()
    resumed = train.train(CONFIG, tmp_path / "killed")
    assert resumed.fingerprint == whole.fingerprint
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "killed" / "logs" / "train.jsonl").read_text().splitlines()
    ]
    assert steps == [0, 1, 2, 3, 4, 4, 5], "goes on from the checkpoint, not from the start"


@pytest.mark.usefixtures("small")
def test_what_is_exported_is_what_was_trained(tmp_path: Path) -> None:
    artifact = train.train(CONFIG, tmp_path / "out")
    tensors = load_file(artifact.file("connector.safetensors"))
    start = load_backbone(tiny.folder("compact")).connector.state_dict()
    assert not torch.equal(tensors["connector.outward.weight"].float(), start["outward.weight"])
    assert sum(float(t.abs().sum()) for name, t in tensors.items() if name.endswith(".b")) > 0
    model = load_backbone(artifact.file("model"))
    trained = model.connector.state_dict()
    assert all(torch.equal(trained[k], tensors[f"connector.{k}"].float()) for k in trained)
    tower = load_backbone(tiny.folder("compact")).tower.state_dict()
    assert all(torch.equal(tower[k], v) for k, v in model.tower.state_dict().items()), "the tower stays frozen"


@pytest.mark.usefixtures("small")
def test_other_settings_are_refused(tmp_path: Path) -> None:
    train.train(CONFIG, tmp_path / "out")
    with pytest.raises(ArtifactMismatch, match="config rank"):
        train.train(replace(CONFIG, rank=3), tmp_path / "out")


def test_words_are_learnt() -> None:
    backbone = tiny.backbone("compact")
    shown = things()
    vision = check.vision_of(backbone, [t.read() for t in shown]).split(1)
    torch.manual_seed(0)
    losses = align(
        backbone, vision, [(t.label, ()) for t in shown], steps=120, seed=0, batch_size=16, learning_rate=5e-3
    )
    assert sum(losses[-10:]) / 10 < 0.7 * losses[0]
    found = {t.label: find(backbone, v, t.label) for t, v in zip(shown, vision, strict=True)}
    assert all(0 < x < 1 and 0 < y < 1 for x, y in found.values())


def test_word_vectors_are_the_words() -> None:
    backbone = tiny.backbone("compact")
    _, vectors = word_vectors(backbone, ["cat", "cat", "dog"])
    assert torch.equal(vectors[0], vectors[1])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize(
    ("label", "clean"),
    [
        ("A pink flamingo.", "pink flamingo"),
        ("The letter d.", "letter d"),
        ("Mercury—the planet closest to the Sun.", "mercury"),
        ("pancake bw", "pancake"),
        ("", ""),
        ("x", ""),
    ],
)
def test_labels_are_cleaned(label: str, clean: str) -> None:
    assert clean_label(label) == clean


def _labelled(count: int) -> Iterator[Thing]:
    for n in range(count):
        thing = things()[n % 12]
        yield replace(thing, name=f"{thing.name}{n}")


def test_a_model_that_knows_nothing_is_at_chance() -> None:
    figures = check.caption_choice(tiny.backbone("compact"), list(_labelled(48)), things(), seed=1)
    assert figures["pictures"] == figures["pictures_shapes"] == 48
    assert 0.0 <= figures["right"] < 0.4
    assert 0.0 <= figures["right_shuffled"] < 0.4


def test_a_model_that_knows_is_seen_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    photos = list(_labelled(24))
    backbone = tiny.backbone("compact")

    def knowing(backbone: Backbone, rows: list, batch_size: int = 50) -> list[float]:
        # Ten captions a picture, the right one first, each with the right picture and then with another one. With
        # another picture, the second caption is preferred.
        return [float(n % 20 in (0, 3)) for n in range(len(rows))]

    monkeypatch.setattr(check, "likelihoods", knowing)
    figures = check.caption_choice(backbone, photos, things(), seed=1)
    assert (figures["right"], figures["right_shuffled"]) == (1.0, 0.0)


def test_likelihoods_are_those_of_the_answers() -> None:
    backbone = tiny.backbone("compact")
    turns = [Turn("user", "What?"), Turn("assistant", "A cat.")]
    longer = [Turn("user", "What is it?"), Turn("assistant", "A much longer answer.")]
    rows = [check.render_turns(backbone, t, None) for t in (turns, longer)]
    found = check.likelihoods(backbone, rows)
    for row, score in zip(rows, found, strict=True):
        with torch.no_grad():
            alone = -float(backbone.loss(backbone.collate([row]))) * sum(row.learnt)
        assert score == pytest.approx(alone, rel=2e-2)


def test_unreadable_points_count_as_the_centre() -> None:
    figures = check.pointing(tiny.backbone("compact"), things(), 10, seed=1)
    assert figures["unreadable_answers"] == 10
    assert figures["median_error"] == figures["median_error_centre"] == figures["median_error_shuffled"]


def test_points_that_are_said_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backbone, "complete", lambda self, rows, max_new_tokens: ["At (50, 50)."] * len(rows))
    figures = check.pointing(tiny.backbone("compact"), things(), 10, seed=1)
    assert figures["unreadable_answers"] == 0
    assert figures["median_error"] == figures["median_error_centre"] > 0


def test_gaze_finds_points_and_where_to_look() -> None:
    backbone = tiny.backbone("compact")
    gaze = Gaze(backbone)
    vision = check.vision_of(backbone, [things()[0].read()])
    said = [Turn("user", "Where?"), Turn("assistant", REGION_MARK, (Region("point", (0.8, 0.1)),))]
    asked = [Turn("user", f"What is at {REGION_MARK}?", (Region("point", (0.2, 0.7)),)), Turn("assistant", "A cat.")]
    boxed = [Turn("user", "Where?"), Turn("assistant", REGION_MARK, (Region("box", (0.1, 0.1, 0.5, 0.5)),))]
    first, second, third = (check.render_turns(backbone, turns, vision) for turns in (said, asked, boxed))
    # Two tokens a side: top right is number 1, bottom left number 2.
    (across, cell), (down, same) = gaze.spots(first)
    token = backbone.processor.tokenizer.convert_ids_to_tokens
    assert (token(first.ids[across]), token(first.ids[down]), cell, same) == ("(", "Ġ", 1, 1)
    assert gaze.spots(second) == [(second.learnt.index(True), 2)]
    assert gaze.spots(third) == []


def test_gaze_is_lowest_where_attention_is_right() -> None:
    backbone = tiny.backbone("compact")
    gaze = Gaze(backbone)
    vision = check.vision_of(backbone, [things()[0].read()])
    row = check.render_turns(
        backbone, [Turn("user", "Where?"), Turn("assistant", REGION_MARK, (Region("point", (0.8, 0.1)),))], vision
    )
    ids = torch.tensor([row.ids])
    right, wrong = torch.zeros(2, 1, 3, len(row), len(row))
    start = row.ids.index(backbone.image_token_id)
    right[..., start + 1], wrong[..., start + 2] = 1.0, 1.0
    assert float(gaze.loss([row], ids, right)) == pytest.approx(0.0, abs=1e-3)
    assert float(gaze.loss([row], ids, wrong)) > 5.0
    assert (
        float(gaze.loss([check.render_turns(backbone, [Turn("user", "A"), Turn("assistant", "B")], None)], ids, right))
        == 0
    )


def test_first_digits_weigh_more() -> None:
    backbone = tiny.backbone("compact")
    ids = torch.tensor(backbone.processor.tokenizer("(37, 62)")["input_ids"])
    assert fit._digit_weights(backbone)(ids).tolist() == [1, 4, 0.25, 1, 1, 4, 0.25, 1]
