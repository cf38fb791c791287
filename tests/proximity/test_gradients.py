"""Projected gradients against autograd's own, sample by sample; and what the projection does to cosines."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embodied_midtrain.proximity.gradients import Gradients
from embodied_midtrain.samples import question
from tests.midtraining.small_pool import picture, samples
from tests.tiny import KINDS, backbone


def rows_of(model):
    return [model.render(sample) for sample in samples()]


def one_by_one(model, rows, last=1.0):
    """The gradients of all linear layers of the language model's last layers, as autograd has them: [rows, weights]."""
    layers = list(model.language.layers)
    layers = layers[len(layers) - max(1, round(last * len(layers))) :]
    weights = [m.weight for layer in layers for m in layer.modules() if isinstance(m, nn.Linear)]
    found = []
    for row in rows:
        logits, targets = model.answer_logits(model.collate([row]))
        loss = F.cross_entropy(logits.float(), targets, reduction="sum")
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)]))
    return torch.stack(found).detach()


def cosines(made):
    unit = F.normalize(made)
    return unit @ unit.T


@pytest.mark.parametrize("kind", KINDS)
def test_with_all_directions_nothing_is_lost(kind):
    model = backbone(kind)
    rows = rows_of(model)
    wanted = one_by_one(model, rows)
    learning = [p.requires_grad for p in model.base.parameters()]
    with Gradients(model, rank=10_000, last=1.0, seed=0, precision="fp32") as gradients:
        assert gradients.dim == wanted.shape[1]
        made = gradients.of(rows, batch_size=5)
        assert not any(p.requires_grad for p in model.base.parameters())
    # A turned gradient has the length that it had, and the same angles.
    products = wanted @ wanted.T
    assert torch.allclose(made @ made.T, products, rtol=1e-3, atol=1e-4 * float(products.max()))
    assert [p.requires_grad for p in model.base.parameters()] == learning
    assert all(p.grad is None for p in model.base.parameters())
    assert not model.language.layers[0].self_attn.q_proj._forward_hooks


def test_the_last_layers_alone():
    model = backbone("compact")
    rows = rows_of(model)
    count = len(model.language.layers)
    assert count > 1
    wanted = one_by_one(model, rows, last=1 / count)
    with Gradients(model, rank=10_000, last=1 / count, seed=0, precision="fp32") as gradients:
        made = gradients.of(rows, batch_size=12)
    assert torch.allclose(cosines(made), cosines(wanted), atol=1e-4)


def test_few_directions_keep_cosines_about():
    model = backbone("compact")
    answers = np.random.default_rng(0).choice(list("abcdefgh"), (12, 6))
    rows = [model.render(question("s", str(n), picture(n), "What?", "".join(a))) for n, a in enumerate(answers)]
    whole = one_by_one(model, rows)
    wanted = cosines(whole)

    def off(rank, seed):
        with Gradients(model, rank=rank, last=1.0, seed=seed, precision="fp32") as gradients:
            assert gradients.dim < whole.shape[1]
            return float((cosines(gradients.of(rows, batch_size=12)) - wanted).square().mean().sqrt())

    few, more = (sum(off(rank, seed) for seed in range(8)) / 8 for rank in (2, 8))
    assert more < 0.6 * few and more < 0.1


def test_the_same_whatever_the_batch_and_zeros_where_nothing_is_learnt():
    model = backbone("compact")
    rows = rows_of(model)
    silent = model.prompt(None, "Say nothing")
    with Gradients(model, rank=4, last=1.0, seed=3, precision="fp32") as gradients:
        together = gradients.of([silent, *rows], batch_size=64)
        alone = torch.cat([gradients.of([row], batch_size=1) for row in rows])
        assert not gradients.of([silent], batch_size=4).any()
    assert not together[0].any() and torch.allclose(together[1:], alone, rtol=1e-3, atol=1e-6)
    with Gradients(model, rank=4, last=1.0, seed=4, precision="fp32") as gradients:
        assert not torch.allclose(gradients.of(rows, batch_size=64), alone, rtol=0.1)


def test_half_precision_is_near():
    model = backbone("compact")
    rows = rows_of(model)
    with Gradients(model, rank=8, last=1.0, seed=0, precision="fp32") as gradients:
        whole = gradients.of(rows, batch_size=6)
    with Gradients(model, rank=8, last=1.0, seed=0, precision="bf16") as gradients:
        half = gradients.of(rows, batch_size=6)
    assert half.dtype == torch.float32 and not torch.equal(half, whole)
    assert F.cosine_similarity(half, whole).min() > 0.99
