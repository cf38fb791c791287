import pytest
import torch
import torch.nn.functional as F

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.policies.fast import FastConfig, FastTokenizer
from embodied_midtrain.policies.tokens import ActionTokens, free_words
from tests.policies.made import goal, made, rows
from tests.tiny import backbone


def test_words_are_plain_ones_from_the_end_of_the_vocabulary():
    model, net, _ = made("fast")
    words = net.tokens.words
    tokenizer = model.processor.tokenizer
    assert len(words) == len(set(words)) == net.tokens.fast.size
    assert not set(words) & {*tokenizer.all_special_ids, model.image_token_id}
    assert max(words) == len(tokenizer) - 1 and min(words) == len(tokenizer) - len(words)


def test_the_loss_is_the_cross_entropy_of_the_chunk_and_the_end():
    model, net, config = made("fast")
    row, wanted = rows(model)[:1], goal(1)
    spoken = net.tokens.fast.encode(wanted.vector.numpy())[0]
    answer = torch.tensor([*(net.tokens.words[n] for n in spoken), net.tokens.end])
    ids = torch.tensor([[*row[0].ids, *answer.tolist()]])
    with torch.no_grad():
        logits = model.model(input_ids=ids, **row[0].pixels).logits[0, len(row[0]) - 1 : -1]
        torch.testing.assert_close(net.loss(model, row, wanted, config), F.cross_entropy(logits, answer))


def test_it_says_what_generating_token_by_token_without_a_cache_says():
    model, net, _ = made("fast")
    said = net.tokens.generate(model, rows(model))
    allowed = [*net.tokens.words, net.tokens.end]
    with torch.no_grad():
        for n, row in enumerate(rows(model)):
            ids, wanted = list(row.ids), []
            for _ in range(net.tokens.fast.coefficients):
                logits = model.model(input_ids=torch.tensor([ids]), **row.pixels).logits[0, -1, allowed]
                if (token := int(logits.argmax())) == len(net.tokens.words):
                    break
                wanted.append(token)
                ids.append(net.tokens.words[token])
            assert said[n] == wanted


def test_a_trained_model_says_the_chunk_and_what_is_malformed_is_counted():
    model, net, config = made("fast")
    row, wanted = rows(model), goal()
    optimizer = torch.optim.AdamW(model.base.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        net.loss(model, row, wanted, config).backward()
        optimizer.step()
    net.tokens.said = net.tokens.malformed = 0
    with torch.inference_mode():
        arm, gripper = net.answer(model, row)
    assert (net.tokens.said, net.tokens.malformed) == (3, 0)
    # Within the quantisation: half a unit in each of three coefficients.
    assert (arm - wanted.arm).abs().max() <= 3 * 0.05 + 1e-5
    assert ((gripper > 0) == (wanted.closed > 0.5)).all()
    # Made to end at once, it says nothing, and that is counted.
    with torch.no_grad():
        model.base.get_output_embeddings().weight[net.tokens.end] *= 1000
    with torch.inference_mode():
        arm, _ = net.answer(model, row)
    assert torch.isfinite(arm).all() and net.tokens.malformed > 0 and net.tokens.said == 6


def test_a_vocabulary_without_room_is_refused():
    model = backbone("compact")
    fast = FastTokenizer.fit(goal(8).vector.numpy(), FastConfig(fast_vocabulary=60))
    assert len(free_words(model)) == 256
    taken = free_words(model)
    with pytest.raises(StageError, match="smaller fast_vocabulary"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("embodied_midtrain.policies.tokens.free_words", lambda _: taken[:10])
        ActionTokens(model, fast)
