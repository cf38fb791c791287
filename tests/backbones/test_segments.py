"""Attention sample by sample says what the masked attention of a packed row says."""

import pytest
import torch
from transformers import MistralConfig, MistralModel

from embodied_midtrain.backbones.segments import attend_by_segments
from tests import tiny
from tests.backbones.talk import samples


@pytest.mark.parametrize("kind", ["compact", "smolvlm"])
@pytest.mark.parametrize("padded", [False, True])
def test_loss_and_gradients_are_those_of_masked_attention(kind, padded):
    found = []
    for by_segments in (False, True):
        backbone = tiny.backbone(kind)
        if by_segments:
            assert attend_by_segments(backbone.language)
        rows = [backbone.render(sample) for sample in samples()]
        loss = backbone.loss(backbone.collate(rows) if padded else backbone.pack(rows))
        loss.backward()
        found.append((loss.detach(), {n: p.grad for n, p in backbone.base.named_parameters() if p.grad is not None}))
    (loss, wanted), (same, grads) = found
    torch.testing.assert_close(same, loss, rtol=1e-5, atol=1e-6)
    assert grads.keys() == wanted.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, wanted[name], rtol=1e-3, atol=1e-5)


def test_a_sample_sees_no_other():
    backbone = tiny.backbone("compact")
    attend_by_segments(backbone.language)
    rows = [backbone.render(sample) for sample in samples()]
    with torch.no_grad():
        before = backbone.states(backbone.pack(rows))[0, : len(rows[0])]
        after = backbone.states(backbone.pack([rows[0], rows[3], rows[2]]))[0, : len(rows[0])]
    assert torch.equal(before, after)


def test_sliding_windows_are_left_alone():
    config = MistralConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=9
    )
    model = MistralModel(config)
    assert not attend_by_segments(model)
    assert model.config._attn_implementation != "segments"
