import pytest
import torch

from embodied_midtrain.policies.reader import Reader, Sight


@pytest.fixture(params=[0, 4])
def sight(request):
    """Five image tokens and two text tokens of width 12; without and with cells of width 6."""
    return Sight(7, 12, 2, request.param, 6 if request.param else 0)


def reader(sight, **sizes):
    torch.manual_seed(0)
    return Reader(sight, **{"width": 16, "queries": 3, "blocks": 2, "heads": 4, **sizes})


def frames(sight, count):
    return torch.randn(count, sight.tokens * sight.hidden + sight.cells * sight.depth)


def test_shape_and_batch_independence(sight):
    net, flat = reader(sight), frames(sight, 5)
    out = net(flat)
    assert out.shape == (5, 48) and net.features == 48
    assert torch.allclose(net(flat[1:2]), out[1:2], atol=1e-5)


def test_it_knows_where_a_state_is_and_what_was_said(sight):
    net, flat = reader(sight), frames(sight, 1)
    moved, said = flat.clone(), flat.clone()
    moved[:, :12], moved[:, 12:24] = flat[:, 12:24], flat[:, :12]
    said[:, 6 * 12 : 7 * 12] += 1.0
    out = net(flat)
    assert (net(moved) - out).abs().max() > 1e-3
    assert (net(said) - out).abs().max() > 1e-3


def test_cells_are_seen():
    sight = Sight(7, 12, 2, 4, 6)
    net, flat = reader(sight), frames(sight, 1)
    other = flat.clone()
    other[:, 7 * 12 :] += torch.randn(24)
    assert (net(other) - net(flat)).abs().max() > 1e-3
    assert [part.shape for part in sight.split(flat)] == [(1, 7, 12), (1, 4, 6)]


def test_standardised_states_have_no_place_mean_and_unit_deviation(sight):
    net, flat = reader(sight), 40.0 * frames(sight, 300) + 5.0
    net.standardise(flat.mean(0), flat.var(0, correction=0))
    for memory, part in zip(net.memories, sight.split(flat), strict=True):
        plain, _ = memory(part)
        assert plain.mean(0).abs().max() < 1e-4
        assert torch.allclose(plain.square().mean((0, 1)), torch.ones(part.shape[-1]), atol=1e-3)


def test_a_dimension_that_never_changes_is_not_blown_up():
    net = reader(Sight(7, 12, 2))
    variance = torch.ones(7, 12)
    variance[:, 0] = 0.0
    net.standardise(torch.zeros(84), variance.flatten())
    scale = net.memories[0].scale
    assert torch.isfinite(scale).all() and scale[0] <= 1e4 + 1
