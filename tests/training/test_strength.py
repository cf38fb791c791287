import torch
from torch import nn

from embodied_midtrain.training.strength import draw_back, remember


def test_half_the_way_from_the_base():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    base = remember({"w": weight})
    with torch.no_grad():
        weight.add_(torch.tensor([4.0, -2.0]))
    draw_back({"w": weight}, base, 0.5)
    assert weight.tolist() == [3.0, 1.0]
    assert base["w"].tolist() == [1.0, 2.0]
