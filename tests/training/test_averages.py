import numpy as np
import pytest
import torch
from torch import nn

from embodied_midtrain.training.averages import Averages


def test_it_is_the_running_average_with_a_quick_start():
    weight = nn.Parameter(torch.zeros(3))
    averages = Averages({"w": weight}, 0.9)
    wanted, values = np.zeros(3), np.random.default_rng(0).standard_normal((200, 3))
    for step, value in enumerate(values):
        with torch.no_grad():
            weight.copy_(torch.from_numpy(value))
        averages.update({"w": weight}, step)
        decay = min(0.9, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * value
    averages.put_into({"w": weight})
    assert weight.detach().numpy() == pytest.approx(wanted, abs=1e-5)
