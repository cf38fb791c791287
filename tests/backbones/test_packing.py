"""A packed row says of each sample what the transformers model itself says of it in a padded batch."""

from dataclasses import replace

import pytest
import torch

from embodied_midtrain.backbones.backbone import IGNORED, Backbone, Rendered
from tests import tiny
from tests.backbones.talk import samples

CASES = [(kind, attention) for kind in tiny.KINDS for attention in ("eager", "sdpa")]
# Gemma 2 has no other than plain attention in transformers.
CASES.remove(("paligemma2", "sdpa"))


@pytest.fixture(params=CASES, ids=["-".join(case) for case in CASES])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    kind, attention = request.param
    backbone = tiny.backbone(kind)
    backbone.model.set_attn_implementation(attention)
    return backbone


def rendered(backbone: Backbone) -> list[Rendered]:
    return [backbone.render(sample) for sample in samples()]


def gradients(backbone: Backbone, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    backbone.model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in backbone.model.named_parameters() if p.grad is not None}


def test_rows_become_one(backbone: Backbone) -> None:
    rows = rendered(backbone)
    batch = backbone.pack(rows)
    assert "attention_mask" not in batch
    assert batch["input_ids"].tolist() == [[token for row in rows for token in row.ids]]
    assert batch["position_ids"].tolist() == [[n for row in rows for n in range(len(row))]]
    wanted = [t if on else IGNORED for row in rows for t, on in zip(row.ids, row.learnt, strict=True)]
    assert batch["labels"].tolist() == [wanted]
    padded = backbone.collate(rows)
    assert batch.keys() - {"position_ids"} == padded.keys() - {"attention_mask"}
    assert all(torch.equal(batch[key], padded[key]) for key in rows[0].pixels)


def test_no_sample_is_predicted_from_the_one_before(backbone: Backbone) -> None:
    rows = [replace(row, learnt=[True] * len(row)) for row in rendered(backbone)]
    labels = backbone.pack(rows)["labels"][0]
    starts = [sum(len(row) for row in rows[:n]) for n in range(len(rows))]
    assert (labels == IGNORED).nonzero()[:, 0].tolist() == starts
    _, targets = backbone.answer_logits(backbone.pack(rows))
    assert targets.tolist() == [token for row in rows for token in row.ids[1:]]


def test_packed_equals_the_models_own_padded_pass(backbone: Backbone) -> None:
    rows = rendered(backbone)
    padded, packed = backbone.collate(rows), backbone.pack(rows)
    own = backbone.model(**backbone.own_inputs(padded), labels=padded["labels"], output_hidden_states=True)
    real = padded["attention_mask"].bool()
    for layer in (0, 1, -1):
        states = backbone.states(packed, layer=layer)[0]
        torch.testing.assert_close(states, own.hidden_states[layer][real], rtol=1e-4, atol=1e-5)
    loss = backbone.loss(packed)
    torch.testing.assert_close(loss, own.loss, rtol=1e-5, atol=1e-6)
    ours, theirs = gradients(backbone, loss), gradients(backbone, own.loss)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@torch.no_grad()
def test_no_sample_sees_another(backbone: Backbone) -> None:
    rows = rendered(backbone)
    changed = list(rows)
    changed[1] = replace(
        rows[1],
        ids=[t if t == backbone.image_token_id else 60 + n % 90 for n, t in enumerate(rows[1].ids)],
        pixels={k: torch.randn_like(v) if v.is_floating_point() else v for k, v in rows[1].pixels.items()},
    )
    before, after = (backbone.states(backbone.pack(some))[0] for some in (rows, changed))
    start, end = len(rows[0]), len(rows[0]) + len(rows[1])
    assert torch.equal(before[:start], after[:start]) and torch.equal(before[end:], after[end:])
    assert ((before[start:end] - after[start:end]).abs().amax(1) > 1e-6).all(), "and the changed one is another"


def test_one_token_and_no_token(backbone: Backbone) -> None:
    one = Rendered([40], [True])
    batch = backbone.pack([one, Rendered([], []), one, one])
    assert batch["position_ids"].tolist() == [[0, 0, 0]]
    states = backbone.states(batch)[0]
    torch.testing.assert_close(states[0], states[2])
    with pytest.raises(ValueError, match="at least one row"):
        backbone.pack([])
