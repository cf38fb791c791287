import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaModel

from embodied_midtrain.training.operations import Operations, attention, linear
from embodied_midtrain.training.peak import matmul_rate

TEXT = LlamaConfig(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_key_value_heads=1,
    vocab_size=64,
    attn_implementation="eager",
)


@pytest.mark.parametrize("learns", [True, False])
def test_the_formula_is_what_torch_counts(learns):
    model = LlamaModel(TEXT).requires_grad_(learns)
    head = torch.nn.Linear(32, 64, bias=False)
    states = torch.randn(1, 20, 32, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        out = model(inputs_embeds=states).last_hidden_state
        head(out[0, :5]).sum().backward()
    cost = Operations(linear(model), attention(3, 32), linear(head), 0.0)
    # Torch counts the masked half of attention too, and the rotary tables' small product.
    counted = counter.get_total_flops() - cost.pair * 20 * 20
    assert cost.of([20], 5, 0) == pytest.approx(counted, rel=1e-3)


def test_a_rate_is_measured_once(tmp_path):
    kept = tmp_path / "matmul.json"
    rate = matmul_rate(torch.device("cpu"), torch.float32, kept)
    assert rate > 1e8 and kept.is_file()
    assert matmul_rate(torch.device("cpu"), torch.float32, kept) == rate
    kept.write_text("{broken")
    assert matmul_rate(torch.device("cpu"), torch.float32, kept) > 1e8
