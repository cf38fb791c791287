import torch
import torch.nn.functional as F

from embodied_midtrain.policies.heads import ResidualHead
from embodied_midtrain.policies.parallel import ParallelConfig
from tests.policies.made import CHUNK, goal, made, rows


def test_the_residual_mlp_by_hand():
    head = ResidualHead(6, 8, 2)
    x = torch.randn(3, 6)
    first, second = head.blocks
    h = F.relu(head.inward[1](F.layer_norm(x, (6,))))
    h = h + F.relu(first[1](F.layer_norm(h, (8,))))
    h = h + F.relu(second[1](F.layer_norm(h, (8,))))
    torch.testing.assert_close(head(x), head.outward[1](F.layer_norm(h, (8,))))


def test_loss_is_the_mean_absolute_error_with_the_gripper_as_a_number():
    model, net, config = made("parallel")
    with torch.no_grad():
        arm, gripper = net.answer(model, rows(model))
        wanted = goal()
        errors = torch.cat([(arm - wanted.arm).abs(), (gripper - (2 * wanted.closed - 1)).abs()[..., None]], dim=-1)
        torch.testing.assert_close(net.loss(model, rows(model), wanted, config), errors.mean())


def states(model, embedded, mask):
    return model.language(inputs_embeds=embedded, attention_mask=mask, use_cache=False).last_hidden_state


def test_placeholders_see_each_other_and_the_prompt_sees_none():
    model, _, _ = made("parallel")
    batch = model.collate(rows(model))
    lengths = batch["attention_mask"].sum(1).tolist()
    queries = torch.randn(CHUNK * 3, model.hidden)
    plain = model.states(batch)
    for together in (True, False):
        one = model.states(batch, queries=queries, together=together)
        changed = queries.clone()
        changed[-1] += 1.0
        other = model.states(batch, queries=changed, together=together)
        for n, length in enumerate(lengths):
            # What stands before the placeholders is what it is without them.
            torch.testing.assert_close(one[n, :length], plain[n, :length], rtol=1e-4, atol=1e-5)
            # The first placeholder feels a change of the last one only where they see each other.
            felt = (one[n, length] - other[n, length]).abs().max() > 1e-5
            assert bool(felt) == together


def test_the_block_mask_equals_attention_written_out():
    # An independent mask: allowed iff the key's block is not later than the query's (each prompt token its own block).
    model, _, _ = made("parallel")
    row = rows(model)[:1]
    batch = model.collate(row)
    count, length = 4, len(row[0])
    queries = torch.randn(count, model.hidden)
    embedded = torch.cat([model.embed(batch), queries[None]], dim=1)
    blocks = torch.tensor([1] * length + [1] + [0] * (count - 1)).cumsum(0)
    allowed = blocks[None, :] <= blocks[:, None]
    mask = torch.zeros(1, 1, length + count, length + count).masked_fill(~allowed, -1e9)
    with torch.no_grad():
        wanted = states(model, embedded, mask)
        torch.testing.assert_close(model.states(batch, queries=queries, together=True), wanted, rtol=1e-4, atol=1e-5)


def test_one_placeholder_a_step():
    model, net, _ = made("parallel", parallel=ParallelConfig(placeholders="steps"))
    assert net.places == CHUNK and not net.together
    assert net.placeholders.requires_grad and net.placeholders.abs().max() == 0
    model, net, _ = made("parallel")
    assert net.places == CHUNK * 3 and "placeholders" not in net.state_dict()
    with torch.no_grad():
        arm, _ = net.answer(model, rows(model))
    # Placeholders of zeros are told apart by their places.
    assert (arm[:, 0] - arm[:, 1]).abs().max() > 1e-6
