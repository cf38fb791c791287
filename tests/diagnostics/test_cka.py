import math

import numpy as np
import pytest
import torch

from embodied_midtrain.diagnostics.cka import LinearCka


def reference(x, y):
    """Kornblith et al.'s equation 3 with linear kernels: HSIC of Gram matrices, all rows at once."""
    n = len(x)
    centre = np.eye(n) - np.ones((n, n)) / n

    def hsic(a, b):
        return np.trace((a @ a.T) @ centre @ (b @ b.T) @ centre)

    return hsic(x, y) / math.sqrt(hsic(x, x) * hsic(y, y))


def streamed(x, y, sizes):
    cka, at = LinearCka(), 0
    for size in sizes:
        cka.add(torch.from_numpy(x[at : at + size]), torch.from_numpy(y[at : at + size]))
        at += size
    assert at == len(x) == cka.rows
    return cka.value()


@pytest.mark.parametrize("sizes", [(40,), (7, 1, 20, 12)])
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_batches_give_the_value_of_gram_matrices(sizes, offset):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6)).astype(np.float32) + offset
    y = np.concatenate([x[:, :3] * 2, rng.normal(size=(40, 8))], axis=1).astype(np.float32) - offset
    assert streamed(x, y, sizes) == pytest.approx(reference(x.astype(float), y.astype(float)), abs=1e-6)
    assert 0.05 < streamed(x, y, sizes) < 0.95


def test_rotation_and_scale_do_not_count_and_other_changes_do():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 5))
    rotation, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    assert streamed(x, 3 * x @ rotation + 1, (25, 35)) == pytest.approx(1)
    assert streamed(x, x * [1, 1, 1, 1, 9], (60,)) < 0.9


def test_what_has_no_value():
    cka = LinearCka()
    assert math.isnan(cka.value())
    cka.add(torch.zeros(3, 2), torch.randn(3, 2))
    assert math.isnan(cka.value())
    with pytest.raises(ValueError, match="3 rows of one model, 2"):
        cka.add(torch.zeros(3, 2), torch.zeros(2, 2))
