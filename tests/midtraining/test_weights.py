import numpy as np
import pytest

from embodied_midtrain.midtraining.weights import quotas, spread


def test_quotas_add_up_and_are_nearest():
    counts = quotas({"a": 1.0, "b": 1.0, "c": 1.0}, "abcd", 100)
    assert sum(counts.values()) == 100 and sorted(counts.values()) == [33, 33, 34]
    assert quotas({"a": 0.5, "b": 0.0, "c": 1.5}, "abc", 8) == {"a": 2, "c": 6}


def test_a_source_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no source 'chart'; did you mean 'charts'"):
        quotas({"chart": 1.0}, ["charts", "books"], 10)
    with pytest.raises(ValueError, match="from 0 on"):
        quotas({"a": -1.0}, "a", 10)
    with pytest.raises(ValueError, match="none is above 0"):
        quotas({"a": 0.0}, "a", 10)


def test_every_stretch_has_the_shares_of_the_whole():
    mixed = spread({"a": np.arange(30), "b": np.arange(100, 110)})
    assert sorted(mixed.tolist()) == [*range(30), *range(100, 110)]
    for at in range(0, 40, 8):
        assert (mixed[at : at + 8] >= 100).sum() == 2
