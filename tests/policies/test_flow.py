from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn
from transformers.models.llama.modeling_llama import rotate_half

from embodied_midtrain.policies.expert import time_embedding
from embodied_midtrain.policies.flow import FlowConfig, draw_times, noise_for
from embodied_midtrain.policies.prefix import Prefix, next_positions, read_prefix
from tests.policies.made import CHUNK, goal, made, rows
from tests.tiny import KINDS, backbone


def test_times_are_of_the_beta_distribution():
    torch.manual_seed(0)
    times = draw_times(20_000, torch.device("cpu")).numpy()
    assert times.min() >= 0.001 and times.max() <= 1.0
    assert stats.kstest((times - 0.001) / 0.999, stats.beta(1.5, 1).cdf).pvalue > 0.01


def test_the_time_has_periods_from_4e_3_to_4():
    at = torch.tensor([0.0, 0.3, 0.3 + 4e-3])
    embedded = time_embedding(at, 16)
    assert embedded.shape == (3, 16)
    torch.testing.assert_close(embedded[0], torch.tensor([0.0] * 8 + [1.0] * 8))
    # The shortest period comes round after 4e-3, the longest hardly moves.
    torch.testing.assert_close(embedded[1, [0, 8]], embedded[2, [0, 8]], atol=1e-4, rtol=0)
    assert np.isclose(embedded[1, 7], np.sin(2 * np.pi * 0.3 / 4), atol=1e-6)


def test_the_loss_by_hand():
    model, net, config = made("flow")
    row, actions = rows(model), goal().vector
    prefix, _ = read_prefix(model, model.collate(row), CHUNK)
    torch.manual_seed(3)
    loss = net.loss(model, row, goal(), config)
    torch.manual_seed(3)
    t = draw_times(3, torch.device("cpu"))
    noise = torch.randn_like(actions)
    x = t[:, None, None] * noise + (1 - t[:, None, None]) * actions
    torch.testing.assert_close(loss, ((net.head(x, t, prefix) - (noise - actions)) ** 2).mean())


def test_euler_goes_from_noise_to_the_actions():
    # With the true velocity of a single chunk, (x - a) / t, any number of steps ends at it.
    _, net, _ = made("flow")
    a = goal().vector

    class Truth(nn.Module):
        pass

    seen = []

    def velocity(x, times, prefix):
        seen.append(float(times[0]))
        return (x - a) / times[:, None, None]

    net.head.forward = velocity
    noise = torch.randn_like(a)
    torch.testing.assert_close(net.head.sample(noise, Prefix([], [])), a, atol=1e-5, rtol=1e-4)
    assert seen == pytest.approx([1 - n / 10 for n in range(10)])


def attended(q, k, v, allowed):
    """Attention written out: [heads, tokens, depth] with key heads repeated."""
    k, v = (t.repeat_interleave(len(q) // len(t), dim=0) for t in (k, v))
    weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).masked_fill(~allowed, -torch.inf).softmax(-1)
    return (weights @ v).transpose(0, 1).flatten(1)


@pytest.mark.parametrize("kind", ["compact", "smolvlm"])
def test_the_cached_prefix_is_the_joint_attention_of_both_transformers(kind):
    """One forward of language model and expert together, layer by layer, under the mask by blocks."""
    model, net, _ = made("flow", kind)
    row = rows(model)[1:2]
    batch = model.collate(row)
    length = len(row[0])
    x, times = torch.randn(1, CHUNK, 3), torch.tensor([0.4])
    language, head = model.language, net.head
    # Image and text: causal, each its own block; the actions: one block behind them.
    blocks = torch.tensor([1] * length + [1] + [0] * (CHUNK - 1)).cumsum(0)
    allowed = blocks[None, :] <= blocks[:, None]
    cosines, sines = language.rotary_emb(torch.zeros(1), torch.arange(length + CHUNK)[None])

    def turned(t):
        return t * cosines[0] + rotate_half(t) * sines[0]

    with torch.no_grad():
        prompt = model.embed(batch)[0]
        time = time_embedding(times, head.width)[:, None].expand(-1, CHUNK, -1)
        actions = head.time_out(F.silu(head.time_in(torch.cat([head.inward(x), time], dim=-1))))[0]
        for own, theirs in zip(head.expert.layers, language.layers, strict=True):
            attention = theirs.self_attn
            read, asked = theirs.input_layernorm(prompt), own.attention_norm(actions[None], None)[0][0]
            depth = attention.head_dim
            offered = own.offer(asked)
            half = offered.shape[-1] // 2

            def both(a, b, depth=depth):
                return torch.cat([a.unflatten(-1, (-1, depth)), b.unflatten(-1, (-1, depth))]).transpose(0, 1)

            q = turned(both(attention.q_proj(read), own.ask(asked)))
            k = turned(both(attention.k_proj(read), offered[..., :half]))
            v = both(attention.v_proj(read), offered[..., half:])
            found = attended(q, k, v, allowed)
            prompt = prompt + attention.o_proj(found[:length])
            prompt = prompt + theirs.mlp(theirs.post_attention_layernorm(prompt))
            actions = actions + own.out(found[length:])
            gated, plain = own.inward(own.mlp_norm(actions[None], None)[0][0]).chunk(2, dim=-1)
            actions = actions + own.outward(F.silu(gated) * plain)
        wanted = head.outward(head.expert.norm(actions[None], None)[0])
        prefix, states = read_prefix(model, batch, CHUNK)
        torch.testing.assert_close(head(x, times, prefix), wanted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(states[0], language.norm(prompt), rtol=1e-4, atol=1e-5)


def test_actions_see_each_other_both_ways_and_no_padding():
    model, net, _ = made("flow")
    prefix, _ = read_prefix(model, model.collate(rows(model)), CHUNK)
    x, times = torch.randn(3, CHUNK, 3), torch.full((3,), 0.5)
    with torch.no_grad():
        plain = net.head(x, times, prefix)
        for at, other in ((0, CHUNK - 1), (CHUNK - 1, 0)):
            moved = x.clone()
            moved[:, at] += 1.0
            assert (net.head(moved, times, prefix)[:, other] - plain[:, other]).abs().min() > 1e-7
        spoilt = [t.masked_fill(~prefix.seen[:, None, :, None], 99.0) for t in prefix.keys]
        again = Prefix(spoilt, prefix.values, prefix.seen, prefix.rope)
        torch.testing.assert_close(net.head(x, times, again), plain)


def test_insulated_the_flow_gives_the_language_model_no_gradient():
    def gradients(weight):
        model, net, config = made("flow", flow=FlowConfig(insulate=True, flow_weight=weight))
        torch.manual_seed(5)
        net.loss(model, rows(model), goal(), config).backward()
        theirs = {n: p.grad for n, p in model.base.named_parameters()}
        return theirs, [p.grad for p in net.parameters()]

    weak, own = gradients(1e-6)
    strong, strong_own = gradients(1e6)
    assert all(torch.equal(weak[name], strong[name]) for name in weak), "exactly the tokens' gradient"
    assert all(s.abs().sum() > w.abs().sum() > 0 for w, s in zip(own, strong_own, strict=True))
    # Without insulation the flow reaches it.
    model, net, config = made("flow")
    net.loss(model, rows(model), goal(), config).backward()
    assert model.connector.outward.weight.grad.abs().sum() > 0


def test_insulated_neither_targets_nor_actions_see_the_other():
    model, net, config = made("flow", flow=FlowConfig(insulate=True))
    row = rows(model)
    batch = model.collate(net.tokens.answered(row, goal()))
    lengths = torch.tensor([len(r) for r in row])
    spoken, _ = read_prefix(model, batch, CHUNK, lengths)
    silent, _ = read_prefix(model, model.collate(row), CHUNK)
    x, times = torch.randn(3, CHUNK, 3), torch.full((3,), 0.5)
    with torch.no_grad():
        torch.testing.assert_close(net.head(x, times, spoken), net.head(x, times, silent), rtol=1e-4, atol=1e-5)
        torch.manual_seed(1)
        both = net.loss(model, row, goal(), config)
        torch.manual_seed(1)
        flow = net.head.loss(goal().vector, silent)
        torch.testing.assert_close(both, net.tokens.loss(model, batch) + flow, rtol=1e-4, atol=1e-5)


def test_adaptive_norms_begin_as_nothing():
    _, net, _ = made("flow", flow=FlowConfig(expert_time="adaptive"))
    expert = net.head.expert
    assert all(layer.attention_norm.modulate.weight.abs().max() == 0 for layer in expert.layers)
    room = net.head.expert.layers[0].room
    empty = [torch.zeros(2, room.key_heads, 1, room.depth)] * 3
    x = torch.randn(2, CHUNK, net.head.width)
    out = expert(x, Prefix(empty, empty), torch.randn(2, net.head.width))
    # Every gate is closed: what comes out is what came in, normed.
    torch.testing.assert_close(out, F.rms_norm(x, (net.head.width,), eps=1e-6))


def test_noise_is_a_rows_own():
    model, _, _ = made("flow")
    row = rows(model)
    noise = noise_for(row, (CHUNK, 3), 0)
    assert torch.equal(noise[1:2], noise_for(row[1:2], (CHUNK, 3), 0))
    assert not torch.equal(noise[0], noise[1]) and not torch.equal(noise, noise_for(row, (CHUNK, 3), 1))


@pytest.mark.parametrize("kind", KINDS)
def test_actions_take_the_positions_that_words_would(kind):
    """Those that the family gives to tokens of a longer prompt, whatever stands in the batch behind the prompt."""
    model = backbone(kind)
    row = rows(model)
    longer = [replace(r, ids=[*r.ids, 20, 20, 20], learnt=[*r.learnt, True, True, True]) for r in row]
    lengths = torch.tensor([len(r) for r in row])
    batch = model.collate(longer)
    given = model.family.reading(model.base, model.embed(batch), batch, [])["position_ids"]
    at = lengths[:, None] + torch.arange(3)
    wanted = at if given is None else (given[-1] if given.ndim == 3 else given).gather(1, at)
    assert torch.equal(next_positions(model, model.collate(row), lengths, 3), wanted)
    assert torch.equal(next_positions(model, batch, lengths, 3), wanted)
