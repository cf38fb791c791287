import numpy as np
import pytest

from embodied_midtrain.features.scaling import balanced_scale


def test_each_side_weighs_half():
    rng = np.random.default_rng(0)
    first, second = rng.normal(3, 2, (9000, 6)).astype(np.float32), rng.normal(-1, 0.5, (700, 6)).astype(np.float32)
    first[:, 4] = second[:, 4] = 7.0
    mean, std = balanced_scale(first, second)
    wide = [side.astype(np.float64) for side in (first, second)]
    middle = (wide[0].mean(0) + wide[1].mean(0)) / 2
    wanted = np.sqrt(sum(((side - middle) ** 2).mean(0) for side in wide) / 2)
    assert mean == pytest.approx(middle, rel=1e-6)
    keep = np.arange(6) != 4
    assert std[keep] == pytest.approx(wanted[keep], rel=1e-5)
    assert std[4] == pytest.approx(1e-3 * np.median(std), rel=1e-3)
