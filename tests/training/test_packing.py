import numpy as np
import pytest

from embodied_midtrain.training.packing import micro_batches, shared, windows


def lengths(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(20, 700, count).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_every_sample_is_in_one_window_and_no_window_is_too_full(seed):
    sizes = lengths(200, seed)
    plan = windows(sizes, 1024)
    assert sorted(n for part in plan for n in part) == list(range(200))
    assert all(sum(sizes[n] for n in part) <= 1024 for part in plan)
    # The least that any packing could take is their sum; this one comes close.
    assert len(plan) <= 1.1 * sum(sizes) / 1024 + 1
    assert plan == windows(sizes, 1024)


def test_no_two_windows_would_fit_into_one():
    sizes = lengths(60)
    loads = sorted(sum(sizes[n] for n in part) for part in windows(sizes, 1024))
    assert loads[0] + loads[1] > 1024


def test_a_longer_sample_has_a_window_of_its_own_and_is_not_cut():
    assert sorted(windows([30, 200, 40], 100)) == [[1], [2, 0]]
    with pytest.raises(ValueError, match="holds nothing"):
        windows([1], 0)


def test_processes_share_a_step_about_evenly():
    sizes = lengths(64)
    shares = shared(sizes, 4)
    assert sorted(n for share in shares for n in share) == list(range(64))
    loads = [sum(sizes[n] for n in share) for share in shares]
    assert max(loads) < 1.05 * min(loads)
    assert shared(sizes, 1) == [list(range(64))]
    with pytest.raises(ValueError, match="too few for 3 processes"):
        shared([5, 6], 3)


@pytest.mark.parametrize("window", [None, 1024])
@pytest.mark.parametrize("ranks", [1, 3])
def test_every_process_has_as_many_micro_batches(ranks, window):
    sizes = lengths(40)
    plans = micro_batches(sizes, ranks=ranks, micro_batch=4, window=window)
    assert len(plans) == ranks and len({len(plan) for plan in plans}) == 1
    assert sorted(n for plan in plans for part in plan for n in part) == list(range(40))
    if window is None:
        assert max(len(part) for plan in plans for part in plan) == 4
