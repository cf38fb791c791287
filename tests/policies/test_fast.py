import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.fft import dct

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.policies.fast import FILE, FastConfig, FastTokenizer, cosines, highest


def smooth(count=200, chunk=8, width=3, seed=0):
    rng = np.random.default_rng(seed)
    ends = rng.uniform(-1, 1, (2, count, 1, width))
    share = np.linspace(0, 1, chunk)[None, :, None]
    return (ends[0] * share + ends[1] * (1 - share)).astype(np.float32)


def fitted(**more):
    return FastTokenizer.fit(smooth(), FastConfig(**{"fast_vocabulary": 300, **more}))


FITTED = fitted()


def test_the_transform_is_the_orthonormal_dct():
    x = np.random.default_rng(0).normal(size=(8, 3))
    assert np.allclose(cosines(8) @ x, dct(x, type=2, norm="ortho", axis=0))
    assert np.allclose(cosines(8) @ cosines(8).T, np.eye(8))


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, (8, 3), elements=st.floats(-1.5, 1.5, width=32)))
def test_any_chunk_comes_back_within_the_quantisation(chunk):
    tokens = FITTED.encode(chunk[None])
    back, whole = FITTED.decode(tokens)
    assert whole.all() and max(tokens[0]) < FITTED.size and len(tokens[0]) <= FITTED.coefficients
    clipped = np.clip(chunk, -1, 1)
    # In the orthonormal basis the error's norm is that of the coefficients, each at most half a unit; clipping helps.
    assert np.linalg.norm(back[0] - clipped, axis=0).max() <= np.sqrt(8) * 0.5 / 10 + 1e-6
    again, _ = FITTED.decode(FITTED.encode(back))
    assert np.abs(again - back).max() <= 2 * np.sqrt(8) * 0.5 / 10 + 1e-6


def test_a_finer_scale_is_closer_and_longer():
    chunks = smooth(seed=1)
    fine = fitted(fast_scale=100.0, fast_vocabulary=1024)
    errors = [np.abs(t.decode(t.encode(chunks))[0] - chunks).mean() for t in (FITTED, fine)]
    lengths = [np.mean([len(tokens) for tokens in t.encode(chunks)]) for t in (FITTED, fine)]
    assert errors[1] < 0.2 * errors[0] and lengths[1] > lengths[0]


def test_low_frequencies_come_first_and_smooth_chunks_are_short():
    tokenizer = fitted(fast_vocabulary=2 * highest(8, 10.0) + 1)
    ids = tokenizer.encode(np.full((1, 8, 3), 0.5, np.float32))[0]
    values = tokenizer._values(ids)
    # A constant has only the lowest frequency: 10 * 0.5 * sqrt(8), in each dimension.
    assert values == [14] * 3 + [0] * 21
    held_out = smooth(seed=2)
    noise = np.random.default_rng(0).uniform(-1, 1, held_out.shape).astype(np.float32)
    count = [np.mean([len(tokens) for tokens in FITTED.encode(c)]) for c in (held_out, noise)]
    assert count[0] < 0.6 * 24 and count[0] < count[1]


def test_extremes_are_in_the_alphabet():
    for chunk in (np.ones((8, 3)), -np.ones((8, 3)), np.sign(cosines(8)[:, :3]), 1e6 * np.ones((8, 3))):
        tokens = FITTED.encode(chunk.astype(np.float32)[None])
        assert FITTED.decode(tokens)[1].all()


def test_what_is_not_whole_is_decoded_as_far_as_it_goes():
    chunk = smooth(1, seed=3)
    (tokens,) = FITTED.encode(chunk)
    back, whole = FITTED.decode([tokens, tokens[:1], [], [*tokens, *tokens], [10**6]])
    assert whole.tolist() == [True, False, False, False, False]
    assert np.isfinite(back).all() and np.abs(back).max() <= 1 and back.shape == (5, 8, 3)
    assert np.allclose(back[3], back[0]) and not back[2].any() and not back[4].any()


def test_the_same_data_give_the_same_tokens_and_they_are_kept(tmp_path):
    assert fitted().encoding.to_str() == FITTED.encoding.to_str()
    FITTED.save(tmp_path)
    again = FastTokenizer.load(tmp_path)
    assert again.encode(smooth(seed=4)) == FITTED.encode(smooth(seed=4))
    (tmp_path / FILE).write_text('{"chunk": 8}')
    with pytest.raises(StageError, match="damaged"):
        FastTokenizer.load(tmp_path)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="57 different coefficients"):
        fitted(fast_vocabulary=56)
    with pytest.raises(ValueError, match="chunks of shape"):
        FastTokenizer.fit(np.zeros((0, 8, 3), np.float32), FastConfig())
