"""What each family does its own way, beside what tests/backbones/test_backbone.py asks of all."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.backbones.families import FAMILIES, family_of
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.policies.encoder import encode
from embodied_midtrain.samples import BadSample, Region, question
from tests import tiny
from tests.backbones.talk import picture, samples

ONE_TILE = ("idefics3", "smolvlm", "internvl")
QWEN = ("qwen2_5_vl", "qwen3_vl")
SIZES = [(40, 24), (24, 40), (100, 30), (200, 200), (9, 9), (640, 480)]


def test_every_named_family_is_proven() -> None:
    assert {tiny.backbone(kind).base.config.model_type for kind in tiny.KINDS} == set(FAMILIES)


@pytest.mark.parametrize("kind", [*ONE_TILE, *QWEN])
def test_a_picture_takes_no_more_tokens_than_allowed(kind: str) -> None:
    found = {}
    for allowed in (4, 12, 30, 100):
        backbone = load_backbone(tiny.folder(kind), image_tokens=allowed)
        rows = [backbone.prompt(picture(n, size).decode(), "What?") for n, size in enumerate(SIZES)]
        counts = [row.ids.count(backbone.image_token_id) for row in rows]
        assert max(counts) <= allowed
        found[allowed] = max(counts)
        # The model takes what comes of it.
        assert torch.isfinite(backbone.states(backbone.collate(rows))).all()
    assert found[4] <= 4 < found[30] <= found[100]


@pytest.mark.parametrize("kind", [*ONE_TILE, *QWEN])
def test_a_saved_backbone_remembers_its_image_tokens(kind: str, tmp_path) -> None:
    one, many = tiny.backbone(kind), load_backbone(tiny.folder(kind), image_tokens=40)
    assert one.fingerprint() != many.fingerprint()
    many.save(tmp_path / "many")
    again = load_backbone(tmp_path / "many")
    large = picture(0, (90, 90)).decode()
    assert again.prompt(large, "What?").ids == many.prompt(large, "What?").ids != one.prompt(large, "What?").ids
    assert again.fingerprint() == many.fingerprint()
    back = load_backbone(tmp_path / "many", image_tokens=16 if kind in QWEN else 4)
    assert back.prompt(large, "What?").ids == one.prompt(large, "What?").ids


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_it_loads_with_the_attention_that_a_gpu_gets(kind: str) -> None:
    config = tiny.backbone(kind).base.config
    model = AutoModelForImageTextToText.from_pretrained(
        tiny.folder(kind), attn_implementation=family_of(config).attention(config)
    )
    assert model.config.get_text_config()._attn_implementation == ("eager" if kind == "paligemma2" else "sdpa")


@pytest.mark.parametrize("kind", QWEN)
def test_places_in_pixels_are_those_of_the_resized_picture(kind: str) -> None:
    backbone = load_backbone(tiny.folder(kind), image_tokens=60)
    for number, size in enumerate(SIZES):
        corner = (Region("box", (0.0, 0.0, 1.0, 1.0)),)
        row = backbone.render(question("s", "1", picture(number, size), "Where?", "<region>", answered_regions=corner))
        said = backbone.processor.tokenizer.decode([i for i, on in zip(row.ids, row.learnt, strict=True) if on])
        high, wide = (int(v) * 4 for v in row.pixels["image_grid_thw"][0, 1:])
        wanted = [0, 0, wide - 1, high - 1] if kind == "qwen2_5_vl" else [0, 0, 1000, 1000]
        assert said.strip().startswith(str(wanted))


def test_places_in_pixels_need_a_picture_of_a_form_that_the_model_takes() -> None:
    backbone = tiny.backbone("qwen2_5_vl")
    place = (Region("point", (0.5, 0.5)),)
    sample = question("s", "1", picture(), "Where?", "<region>", answered_regions=place)
    with pytest.raises(BadSample, match="bad geometry"):
        backbone.render(replace(sample, pictures=()))
    with pytest.raises(BadSample, match="unusual image"):
        backbone.render(replace(sample, pictures=(picture(0, (900, 3)),)))
    with pytest.raises(BadSample, match="unusual image"):
        backbone.prompt(picture(0, (900, 3)).decode(), "What?")


@torch.no_grad()
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_pictures_of_odd_forms_are_taken_or_refused_by_name(kind: str) -> None:
    backbone = tiny.backbone(kind)
    taken = []
    for number, size in enumerate([(1, 1), (1, 60), (60, 1), (1, 900), (900, 1), (3, 500)]):
        try:
            taken.append(backbone.prompt(picture(number, size).decode(), "What?"))
        except BadSample as error:
            assert error.reason == "unusual image"
    assert len(taken) >= 4
    assert torch.isfinite(backbone.states(backbone.collate(taken))).all()


@torch.no_grad()
def test_the_prefix_of_paligemma_sees_all_of_itself_and_nothing_of_the_answer() -> None:
    backbone = tiny.backbone("paligemma")
    row = backbone.render(samples()[0])
    start = row.learnt.index(True)
    plain = backbone.states(backbone.collate([row]))[0]

    def changed(at: int) -> torch.Tensor:
        other = replace(row, ids=[61 if n == at else t for n, t in enumerate(row.ids)])
        return (backbone.states(backbone.collate([other]))[0] - plain).abs().amax(1) > 1e-7

    assert changed(start - 2).all(), "the question is seen by the picture before it"
    later = changed(start + 2)
    assert not later[: start + 2].any() and later[start + 2 :].all()


@torch.no_grad()
def test_pictures_reach_the_early_layers_of_qwen3() -> None:
    backbone = tiny.backbone("qwen3_vl")
    batch = backbone.collate([backbone.render(samples()[0])])
    embedded = backbone.embed(batch)
    real = backbone.states(batch)
    lists = backbone.base.model.visual.deepstack_merger_list
    lists[0].linear_fc2.weight.mul_(2.0)
    assert torch.equal(backbone.embed(batch), embedded), "the features at image tokens are the same"
    assert not torch.allclose(backbone.states(batch), real)


@pytest.mark.parametrize("kind", ["smolvlm", "internvl", *QWEN])
def test_the_video_part_of_a_processor_is_handed_on(kind: str, tmp_path) -> None:
    folder = tmp_path / "hub"
    shutil.copytree(tiny.folder(kind), folder)
    settings = json.dumps({"video_processor_type": "SomeVideoProcessor", "fps": 2})
    (folder / "video_preprocessor_config.json").write_text(settings)
    whole = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({**whole, "video_processor": {"fps": 2}}))
    backbone = load_backbone(folder)
    assert backbone.prompt(np.zeros((24, 40, 3), np.uint8), "What?").ids
    backbone.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "video_preprocessor_config.json").read_text() == settings
    saved = json.loads((tmp_path / "saved" / "processor_config.json").read_text())
    assert saved["processor_class"] == whole["processor_class"] and "video_settings" not in saved


def test_a_model_that_was_not_taught_to_answer_is_refused() -> None:
    backbone = tiny.backbone("internvl")
    backbone.processor.chat_template = None
    with pytest.raises(StageError, match="no chat template"):
        backbone.render(samples()[0])


@torch.no_grad()
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_policies_get_their_states(kind: str) -> None:
    backbone = tiny.backbone(kind)
    rows = [backbone.prompt(np.full((24, 32, 3), shade, np.uint8), "Go left") for shade in (0, 200)]
    flat, sight = encode(backbone, rows, layer=2, text_tokens=3)
    assert flat.shape == (2, sight.tokens * backbone.hidden) and torch.isfinite(flat).all()
    assert not torch.equal(flat[0], flat[1])
    # What comes after the layer does not run, and changes nothing.
    batch = backbone.collate(rows)
    whole = backbone.layer_states(batch)
    assert len(whole) == backbone.layers + 1
    torch.testing.assert_close(backbone.states(batch, layer=2), whole[2], rtol=1e-4, atol=1e-5)
    for last in (0, 1, 2):
        torch.testing.assert_close(backbone.layer_states(batch, last), whole[: last + 1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(backbone.states(batch), whole[-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_a_query_learns_with_the_whole_backbone(kind: str) -> None:
    backbone = tiny.backbone(kind)
    batch = backbone.collate([backbone.prompt(picture(n).decode(), "Go left") for n in (1, 2)])
    query = torch.zeros(1, backbone.hidden, requires_grad=True)
    backbone.last(backbone.states(batch, queries=query), batch, 1).square().sum().backward()
    assert query.grad is not None and bool(query.grad.abs().sum() > 0)
    for name, group in backbone.groups().items():
        assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in group), name


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_half_precision_goes_through(kind: str) -> None:
    backbone = load_backbone(tiny.folder(kind), dtype=torch.bfloat16)
    rows = [backbone.render(sample) for sample in samples()]
    full = tiny.backbone(kind)
    loss = backbone.loss(backbone.pack(rows))
    loss.backward()
    torch.testing.assert_close(loss.float(), full.loss(full.pack(rows)), rtol=0.05, atol=0.05)
    assert len(backbone.complete([backbone.prompt(picture().decode(), "What?")], max_new_tokens=2)) == 1


HUB_NAMES = {
    "idefics3": "Idefics3ImageProcessor",
    "smolvlm": "SmolVLMImageProcessorFast",
    "internvl": "GotOcr2ImageProcessorFast",
    "qwen2_5_vl": "Qwen2VLImageProcessor",
    "qwen3_vl": "Qwen2VLImageProcessorFast",
    "paligemma": "SiglipImageProcessorFast",
}
"""What the files on the hub call their image processors."""


@pytest.mark.parametrize("kind", HUB_NAMES)
def test_the_files_of_the_hub_are_read(kind: str, tmp_path) -> None:
    """Older files than transformers writes today: a file for pictures, a file for the template, pixel bounds apart."""
    folder = tmp_path / "hub"
    shutil.copytree(tiny.folder(kind), folder)
    whole = json.loads((folder / "processor_config.json").read_text())
    images = whole.pop("image_processor")
    images |= {"image_processor_type": HUB_NAMES[kind], "processor_class": whole["processor_class"]}
    if kind == "qwen2_5_vl":
        size = images.pop("size")
        images |= {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    (folder / "processor_config.json").write_text(json.dumps(whole))
    template = folder / "chat_template.jinja"
    if template.is_file():
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": template.read_text()}))
        template.unlink()
    read, tiny_one = load_backbone(folder), tiny.backbone(kind)
    ours, theirs = (b.collate([b.render(sample) for sample in samples()]) for b in (read, tiny_one))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert read.fingerprint() == tiny_one.fingerprint()
