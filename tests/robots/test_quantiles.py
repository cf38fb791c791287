import numpy as np
import pytest

from embodied_midtrain.robots.quantiles import QuantileSketch

SHARES = (0.01, 0.5, 0.99)


def test_small_streams_are_exact_however_they_come():
    rows = np.random.default_rng(0).normal(size=(999, 3)).astype(np.float32)
    sketch = QuantileSketch(3, capacity=1000)
    for part in np.array_split(rows, 7):
        sketch.add(part)
    assert np.array_equal(sketch.quantiles(SHARES), np.quantile(rows, SHARES, axis=0))


@pytest.mark.parametrize("order", ["random", "rising", "falling"])
def test_large_streams_are_close_in_rank_and_take_flat_memory(order):
    rng = np.random.default_rng(1)
    rows = np.stack([rng.normal(size=200_000), rng.exponential(size=200_000) ** 3], axis=1)
    if order != "random":
        rows = np.sort(rows, axis=0)[:: 1 if order == "rising" else -1]
    capacity, held = 2000, 0
    sketch = QuantileSketch(2, capacity=capacity)
    for part in np.array_split(rows, 333):
        sketch.add(part.astype(np.float32))
        held = max(held, sketch.held)
    levels = np.ceil(np.log2(len(rows) / capacity)) + 1
    assert sketch.count == len(rows) and held <= capacity * levels
    for share, found in zip(SHARES, sketch.quantiles(SHARES), strict=True):
        for column in range(2):
            assert abs((rows[:, column] <= found[column]).mean() - share) <= levels / capacity


def test_weights_add_up_to_the_count():
    sketch = QuantileSketch(1, capacity=4)
    for n in range(101):
        sketch.add(np.array([[n]], np.float32))
    total = sum(len(level) * 2**n for n, level in enumerate(sketch._levels))
    assert total == sketch.count == 101
    assert abs(sketch.quantiles([0.5])[0, 0] - 50) <= 12


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="no rows"):
        QuantileSketch(2).quantiles(SHARES)
    with pytest.raises(ValueError, match="even"):
        QuantileSketch(2, capacity=3)
