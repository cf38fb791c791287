import numpy as np
import pytest

from embodied_midtrain.training.order import bucketed, draws


def test_draws_are_whole_epochs_and_the_same_for_the_same_seed():
    drawn = draws(7, 17, seed=3)
    counts = np.bincount(drawn, minlength=7)
    assert len(drawn) == 17 and set(counts) <= {2, 3}
    assert sorted(drawn[:7]) == list(range(7))
    assert (drawn == draws(7, 17, seed=3)).all()
    assert (drawn != draws(7, 17, seed=4)).any()


def test_drawing_from_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing to train on"):
        draws(0, 4, seed=0)


def test_buckets_keep_what_was_drawn_and_lessen_padding():
    lengths = np.random.default_rng(0).integers(10, 500, 300)
    order = draws(300, 640, seed=1)
    steps = bucketed(lengths, order, 8, seed=1)
    assert steps.shape == (80, 8)
    assert (np.bincount(steps.ravel(), minlength=300) == np.bincount(order, minlength=300)).all()

    def padded(batches):
        return sum(len(b) * lengths[b].max() - lengths[b].sum() for b in batches)

    assert padded(steps) < 0.3 * padded(order.reshape(-1, 8))
    # Not in order of length over the run: the schedule must not meet the long ones last.
    assert abs(np.corrcoef(np.arange(80), lengths[steps].mean(1))[0, 1]) < 0.5


def test_uneven_batches_are_refused():
    with pytest.raises(ValueError, match="do not divide"):
        bucketed([1, 2, 3], np.arange(3), 2, seed=0)
