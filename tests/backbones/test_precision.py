"""Half precision by casting says what half precision by loading says."""

import pytest
import torch

from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.backbones.precision import autocast, cast, pick_precision, quick_inference
from tests import tiny


@pytest.mark.parametrize("kind", ["compact", "smolvlm"])
def test_a_cast_model_is_the_one_that_its_file_gives(kind, tmp_path):
    backbone = tiny.backbone(kind)
    cast(backbone.model, torch.device("cpu"), torch.bfloat16)
    backbone.save(tmp_path / "half")
    loaded = load_backbone(tmp_path / "half")
    assert {p.dtype for p in backbone.model.parameters()} == {torch.bfloat16}
    for (name, one), (_, other) in zip(backbone.model.named_buffers(), loaded.model.named_buffers(), strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other), name
    ids = torch.arange(20, 60)[None]
    with torch.inference_mode():
        assert torch.equal(
            backbone.language(input_ids=ids).last_hidden_state, loaded.language(input_ids=ids).last_hidden_state
        )


def test_rounding_what_a_model_computes_changes_what_it_says():
    """Why `cast` is not `Module.to`."""
    one, other = tiny.backbone("compact"), tiny.backbone("compact")
    cast(one.model, torch.device("cpu"), torch.bfloat16)
    other.model.to(torch.bfloat16)
    ids = torch.arange(20, 60)[None]
    with torch.inference_mode():
        assert not torch.equal(
            one.language(input_ids=ids).last_hidden_state, other.language(input_ids=ids).last_hidden_state
        )


def test_a_named_precision_is_taken_as_it_is():
    assert pick_precision("fp32", torch.device("cpu")) is torch.float32
    assert pick_precision("bf16", torch.device("cpu")) is torch.bfloat16


@pytest.mark.parametrize("kind", ["compact", "smolvlm"])
def test_quick_inference_says_what_autocast_says_and_leaves_no_trace(kind):
    backbone, cpu = tiny.backbone(kind), torch.device("cpu")
    ids = torch.arange(20, 60)[None]
    before = backbone.fingerprint()
    with torch.inference_mode(), autocast(cpu, "bf16"):
        wanted = backbone.language(input_ids=ids).last_hidden_state
    with pytest.raises(RuntimeError, match="in the middle"), quick_inference(backbone.base, cpu, "bf16"):
        with torch.inference_mode():
            assert torch.equal(backbone.language(input_ids=ids).last_hidden_state, wanted)
        assert backbone.fingerprint() != before
        raise RuntimeError("in the middle")
    assert backbone.fingerprint() == before
