import torch

from embodied_midtrain.policies.reader import Reader


def reader(**sizes):
    torch.manual_seed(0)
    return Reader(12, tokens=7, text=2, **{"width": 16, "queries": 3, "blocks": 2, "heads": 4, **sizes})


def test_shape_and_batch_independence():
    net, states = reader(), torch.randn(5, 7, 12)
    out = net(states)
    assert out.shape == (5, 48) and net.features == 48
    assert torch.allclose(net(states[1:2]), out[1:2], atol=1e-5)


def test_it_knows_where_a_state_is_and_what_was_said():
    net, states = reader(), torch.randn(1, 7, 12)
    moved = states[:, [1, 0, 2, 3, 4, 5, 6]]
    said = states.clone()
    said[:, -1] += 1.0
    out = net(states)
    assert (net(moved) - out).abs().max() > 1e-3
    assert (net(said) - out).abs().max() > 1e-3


def test_standardised_states_have_no_place_mean_and_unit_deviation():
    net, states = reader(), 40.0 * torch.randn(200, 7, 12) * torch.arange(1, 13) + torch.randn(7, 12)
    mean = states.mean(0)
    net.standardise(mean, (states - mean).square().mean((0, 1)).sqrt())
    seen = (states - net.mean) * net.scale
    assert seen.mean(0).abs().max() < 1e-4
    assert torch.allclose(seen.square().mean((0, 1)), torch.ones(12), atol=1e-3)


def test_a_dimension_that_never_changes_is_not_blown_up():
    net = reader()
    net.standardise(torch.zeros(7, 12), torch.tensor([0.0] + [1.0] * 11))
    assert torch.isfinite(net.scale).all()
    assert net.scale[0] <= 1e4 + 1
