from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import ProcessorMixin

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.backbones.backbone import IGNORED, Backbone
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.samples import BadSample, Picture, Sample, Turn
from tests import tiny
from tests.backbones.talk import picture, samples

KINDS = tiny.KINDS
PLACES = {"internvl": "<box>[[370, 620]]</box>", "qwen2_5_vl": "[15, 15]", "qwen3_vl": "[370, 620]"}
PLACES |= {"paligemma": "<loc0634><loc0379>", "paligemma2": "<loc0634><loc0379>"}
"""How a family says (0.37, 0.62) of a picture of 40 x 24; the others as percentages."""


@pytest.fixture(scope="module", params=KINDS)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    backbone = tiny.backbone(request.param)
    backbone.name = request.param
    return backbone


def tokens(kind: str, width: int, height: int) -> int:
    """Image tokens of the tiny model: one tile, or one for each 8 x 8 pixels."""
    return width * height // 64 if kind.startswith("qwen") else 4


def said(backbone: Backbone, sample: Sample) -> str:
    """The text of the tokens that are learnt."""
    row = backbone.render(sample)
    return str(backbone.processor.tokenizer.decode([i for i, on in zip(row.ids, row.learnt, strict=True) if on]))


def test_only_answers_and_their_end_are_learnt(backbone: Backbone) -> None:
    first, second, third, _ = samples()
    end = backbone.processor.tokenizer.eos_token
    assert said(backbone, first).strip() == f"A red car.{end}"
    assert said(backbone, second).strip() == f"At {PLACES.get(backbone.name, '(37, 62)')}, I think.{end}"
    assert [part.strip() for part in said(backbone, third).split(end)] == ["A cat.", "Yes, I am.", ""]


def test_an_answer_follows_the_prompt_that_inference_gives(backbone: Backbone) -> None:
    sample = samples()[0]
    row = backbone.render(sample)
    prompt = backbone.prompt(sample.pictures[0].decode(), "Describe the image.")
    assert row.ids[: row.learnt.index(True)] == prompt.ids
    assert not any(prompt.learnt)


def test_image_tokens(backbone: Backbone) -> None:
    counts = [backbone.render(sample).ids.count(backbone.image_token_id) for sample in samples()]
    assert counts == [tokens(backbone.name, 40, 24)] * 3 + [0]
    frame = np.zeros((24, 32, 3), np.uint8)
    row = backbone.prompt(frame, "<image>What action?")
    assert row.ids.count(backbone.image_token_id) == tokens(backbone.name, 32, 24)


def test_a_sample_is_what_the_models_own_processor_makes(backbone: Backbone) -> None:
    processor, sample = backbone.processor, samples()[0]
    batch = backbone.collate([backbone.render(sample)])
    ask, answer = (turn.text for turn in sample.turns)
    picture = sample.pictures[0].decode()
    if backbone.name.startswith("paligemma"):
        wanted = processor(text=f"<image>{ask}", images=picture, suffix=answer, return_tensors="pt")
    else:
        content = [{"type": "image"}, {"type": "text", "text": ask}]
        said = [{"type": "text", "text": answer}]
        talk = [{"role": "user", "content": content}, {"role": "assistant", "content": said}]
        text = ProcessorMixin.apply_chat_template(processor, talk).rstrip()
        cut = {"crop_to_patches": False} if backbone.name == "internvl" else {}
        wanted = processor(text=[text], images=[picture], return_tensors="pt", **cut)
    ours = backbone.own_inputs(batch)
    assert ours.keys() == wanted.keys() - {"labels"}
    for key, tensor in ours.items():
        assert torch.equal(tensor, wanted[key].to(tensor.dtype)), key


def test_labels_are_the_learnt_tokens(backbone: Backbone) -> None:
    rows = [backbone.render(sample) for sample in samples()]
    batch = backbone.collate(rows)
    for n, row in enumerate(rows):
        wanted = [i if on else IGNORED for i, on in zip(row.ids, row.learnt, strict=True)]
        assert batch["labels"][n, : len(row)].tolist() == wanted
        assert (batch["labels"][n, len(row) :] == IGNORED).all()
        assert batch["attention_mask"][n].sum() == len(row)


@torch.no_grad()
def test_states_do_not_depend_on_the_batch(backbone: Backbone) -> None:
    rows = [backbone.render(sample) for sample in samples()]
    together = backbone.states(backbone.collate(rows))
    for n, row in enumerate(rows):
        alone = backbone.states(backbone.collate([row]))[0]
        torch.testing.assert_close(together[n, : len(row)], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_states_equal_the_models_own(backbone: Backbone) -> None:
    batch = backbone.collate([backbone.render(sample) for sample in samples()[:3]])
    own = backbone.model(**backbone.own_inputs(batch), output_hidden_states=True).hidden_states
    real = batch["attention_mask"].bool()
    for layer in (0, 1, backbone.layers, -1):
        torch.testing.assert_close(backbone.states(batch, layer=layer)[real], own[layer][real], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_loss_equals_the_models_own(backbone: Backbone) -> None:
    batch = backbone.collate([backbone.render(sample) for sample in samples()])
    own = backbone.model(**backbone.own_inputs(batch), labels=batch["labels"]).loss
    torch.testing.assert_close(backbone.loss(batch), own, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_queries_stand_where_a_further_token_would(backbone: Backbone) -> None:
    prompts = [backbone.prompt(picture(1).decode(), "What?"), backbone.prompt(picture(2).decode(), "And where?")]
    token = 60
    longer = [replace(row, ids=[*row.ids, token], learnt=[*row.learnt, True]) for row in prompts]
    word = backbone.base.get_input_embeddings()(torch.tensor([token]))
    batch = backbone.collate(prompts)
    found = backbone.last(backbone.states(batch, queries=word), batch, 1)
    further = backbone.collate(longer)
    wanted = backbone.last(backbone.states(further), further, 1, queries=False)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["compact", "idefics3"])
def test_cached_vision_stands_in_for_pixels(kind: str) -> None:
    backbone = tiny.backbone(kind)
    rows = [backbone.render(sample) for sample in samples()]
    cached = [replace(row, pixels={"vision": backbone.vision(row.pixels)}) if row.pixels else row for row in rows]
    torch.testing.assert_close(
        backbone.states(backbone.collate(cached)), backbone.states(backbone.collate(rows)), rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_pictures_matter(backbone: Backbone) -> None:
    rows = [backbone.prompt(picture(seed).decode(), "What?") for seed in (1, 2)]
    states = backbone.states(backbone.collate(rows))
    assert (states[0, -1] - states[1, -1]).abs().max() > 1e-4


@torch.no_grad()
def test_queries_go_after_the_last_real_token(backbone: Backbone) -> None:
    rows = [backbone.render(sample) for sample in samples()]
    queries = torch.randn(2, backbone.hidden, generator=torch.manual_seed(1))
    batch = backbone.collate(rows)
    states = backbone.states(batch, queries=queries)
    assert states.shape == (4, batch["input_ids"].shape[1] + 2, backbone.hidden)
    found = backbone.last(states, batch, 2)
    plain = backbone.states(batch)
    for n, row in enumerate(rows):
        one = backbone.collate([row])
        torch.testing.assert_close(found[n], backbone.states(one, queries=queries)[0, -2:], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(states[n, : len(row)], plain[n, : len(row)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    backbone = tiny.backbone(kind)
    backbone.loss(backbone.collate([backbone.render(sample) for sample in samples()])).backward()
    groups = backbone.groups()
    names = {id(p): name for name, p in backbone.base.named_parameters()}
    assert sum(len(group) for group in groups.values()) == len(names)
    for group, parameters in groups.items():
        without = [names[id(p)] for p in parameters if p.grad is None or not p.grad.abs().sum() > 0]
        assert not without, f"{group}: {without}"


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load(kind: str, tmp_path) -> None:
    backbone = tiny.backbone(kind)
    with torch.no_grad():
        for parameter in backbone.base.parameters():
            parameter.mul_(1.5)
    backbone.save(tmp_path / "model")
    again = load_backbone(tmp_path / "model")
    for one, other in zip(backbone.base.state_dict().values(), again.base.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    ours, theirs = (b.collate([b.render(sample) for sample in samples()]) for b in (backbone, again))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert torch.equal(backbone.states(ours), again.states(theirs))
    assert again.fingerprint() == backbone.fingerprint()


@pytest.mark.parametrize("kind", KINDS)
def test_peft_wraps_trains_and_is_merged_on_saving(kind: str, tmp_path) -> None:
    peft = pytest.importorskip("peft")
    backbone = tiny.backbone(kind)
    batch = backbone.collate([backbone.render(sample) for sample in samples()])
    before = backbone.states(batch).detach()
    config = peft.LoraConfig(r=4, target_modules=r".*(language|text)_model.*\.[qv]_proj")
    backbone.model = peft.get_peft_model(backbone.model, config)
    torch.testing.assert_close(backbone.states(batch), before)
    trained = [p for p in backbone.model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.02)
    losses = []
    for _ in range(8):
        loss = backbone.loss(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.01
    backbone.save(tmp_path / "model")
    with torch.no_grad():
        after = load_backbone(tmp_path / "model").states(batch)
        torch.testing.assert_close(after, backbone.states(batch), rtol=1e-3, atol=1e-4)


def test_generate_runs_and_complete_equals_it(backbone: Backbone) -> None:
    row = backbone.prompt(picture().decode(), "What is this?")
    inputs = backbone.own_inputs(backbone.collate([row]))
    made = backbone.model.generate(**inputs, max_new_tokens=5, do_sample=False)
    text = backbone.processor.tokenizer.decode(made[0, len(row) :], skip_special_tokens=True).strip()
    longer = backbone.prompt(picture(1).decode(), "And what is this, then?")
    assert backbone.complete([longer, row], max_new_tokens=5)[1] == text


@pytest.mark.parametrize("kind", KINDS)
def test_random_language_leaves_the_rest(kind: str) -> None:
    backbone = tiny.backbone(kind)
    fresh, again, other = (load_backbone(tiny.folder(kind), random_language=seed) for seed in (7, 7, 8))
    kept, new = backbone.groups(), fresh.groups()
    for group in ("vision", "connector"):
        assert all(torch.equal(a, b) for a, b in zip(kept[group], new[group], strict=True))
    wide = [n for n, p in enumerate(new["language"]) if p.ndim == 2]
    assert all(not torch.equal(kept["language"][n], new["language"][n]) for n in wide)
    assert fresh.fingerprint() == again.fingerprint() != other.fingerprint()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pictures": (Picture(b"\x89PNG no"),)}, "broken image"),
        ({"pictures": (Picture(b""),)}, "empty image"),
        ({"turns": (Turn("user", "What?"), Turn("assistant", "  "))}, "empty text"),
        ({"turns": (Turn("user", "What?"), Turn("assistant", "<image>"))}, "empty text"),
        ({"turns": (Turn("user", "a<END>b"), Turn("assistant", "Yes."))}, "control token"),
        ({"turns": (Turn("user", "What?"), Turn("assistant", "very long " * 400))}, "too long"),
    ],
)
def test_unusable_samples_are_named(backbone: Backbone, changes: dict, reason: str) -> None:
    end = backbone.processor.tokenizer.eos_token
    changes = {k: tuple(replace(t, text=t.text.replace("<END>", end)) for t in v) if k == "turns" else v
               for k, v in changes.items()}  # fmt: skip
    with pytest.raises(BadSample) as caught:
        backbone.render(replace(samples()[0], **changes))
    assert caught.value.reason == reason


def test_bad_calls(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match="uint8"):
        backbone.prompt(np.zeros((8, 8, 3), np.float32), "What?")
    with pytest.raises(ValueError, match="at least one row"):
        backbone.collate([])
    with pytest.raises(ValueError, match="no token of this batch is learnt"):
        backbone.loss(backbone.collate([backbone.prompt(None, "What?")]))
    row = backbone.render(samples()[0])
    at = row.ids.index(backbone.image_token_id)
    cut = replace(row, ids=row.ids[:at] + row.ids[at + 1 :], learnt=row.learnt[1:])
    with pytest.raises(ValueError, match="image tokens"):
        backbone.states(backbone.collate([cut, cut]))


def test_a_folder_that_is_no_model_is_refused(tmp_path) -> None:
    with pytest.raises(StageError, match=r"no config\.json"):
        load_backbone(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(StageError, match="cannot load the backbone"):
        load_backbone(tmp_path)
