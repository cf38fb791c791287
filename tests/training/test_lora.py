import pytest
import torch
from torch import nn

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.training.lora import add_lora, let_learn, merge_lora


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))


def nudge(adapted):
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))


def test_only_lora_trains_and_it_starts_as_no_change():
    adapted = model()
    x = torch.randn(4, 8)
    before = adapted(x)
    assert add_lora(adapted, rank=2, alpha=4, seed=1) == ["0", "2"]
    assert torch.equal(adapted(x), before)
    trained = {n for n, p in adapted.named_parameters() if p.requires_grad}
    assert len(trained) == 4 and all("lora_" in n for n in trained)


def test_merged_model_is_plain_and_says_the_same():
    adapted = model()
    x = torch.randn(4, 8)
    plain = adapted(x)
    add_lora(adapted, rank=2, alpha=4, seed=1)
    nudge(adapted)
    tuned = adapted(x)
    assert not torch.allclose(tuned, plain, atol=1e-2)
    change = merge_lora(adapted, lambda: adapted(x))
    assert change < 1e-5
    assert torch.allclose(adapted(x), tuned, atol=1e-5)
    assert adapted.state_dict().keys() == model().state_dict().keys()


def test_a_merge_that_changes_the_answer_is_refused():
    adapted = model()
    add_lora(adapted, rank=2, alpha=4, seed=1)
    nudge(adapted)
    drift = iter([1.0, 1.5])
    with pytest.raises(StageError, match="differs from the trained one"):
        merge_lora(adapted, lambda: adapted(torch.ones(1, 8)) * next(drift))


def test_layers_can_be_limited_and_none_is_an_error():
    adapted = model()
    assert add_lora(adapted, rank=2, alpha=4, seed=1, within=[adapted[2].weight]) == ["2"]
    with pytest.raises(ValueError, match="no linear layer"):
        add_lora(nn.Sequential(nn.ReLU()), rank=2, alpha=4, seed=1)


def test_what_learns_itself_learns_and_nothing_else():
    whole = model()
    first = whole[0]
    let_learn(whole, list(first.parameters()), lora=False, rank=2, alpha=4, seed=1)
    assert {n for n, p in whole.named_parameters() if p.requires_grad} == {"0.weight", "0.bias"}


def test_lora_beside_the_chosen_layers_only():
    whole = model()
    let_learn(whole, list(whole[0].parameters()), lora=True, rank=2, alpha=4, seed=1)
    learning = {n for n, p in whole.named_parameters() if p.requires_grad}
    assert learning and all(n.startswith("0.lora_") for n in learning)
