"""Several data sets as one target: equal numbers of episodes, drawn by seed, actions in units of their own range."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.episodes import ActionSpec, Episode
from embodied_midtrain.robots.actions import ActionNormaliser
from embodied_midtrain.robots.balanced import BalancedRobots
from tests import tiny


class Counted(tiny.Dots):
    """How often it is read, and a scale of its actions."""

    def __init__(self, episodes: int, scale: float) -> None:
        super().__init__(episodes)
        self.episodes: list[Episode] = [replace(e, actions=e.actions * np.float32(scale)) for e in self.episodes]
        self.begun = 0

    def __iter__(self):
        self.begun += 1
        return super().__iter__()


def test_as_many_of_each_and_the_task_is_the_data_set() -> None:
    parts = {"big": Counted(20, 1.0), "small": Counted(5, 0.01)}
    robots = BalancedRobots(parts, episodes=5, seed=0)
    found = list(robots)
    assert Counter(e.task for e in found) == {"big": 5, "small": 5}
    assert [e.id for e in found] == [e.id for e in robots]
    assert [parts["big"].begun, parts["small"].begun] == [3, 3], "one pass to count, one for each reading"
    again = BalancedRobots({"big": Counted(20, 1.0), "small": Counted(5, 0.01)}, episodes=5, seed=1)
    assert [e.id for e in again][:5] != [e.id for e in found][:5]
    assert again.fingerprint() != robots.fingerprint() != BalancedRobots(parts, episodes=4, seed=0).fingerprint()
    everything = BalancedRobots(parts, episodes=None, seed=0)
    assert Counter(e.task for e in everything) == {"big": 20, "small": 5}


def test_actions_are_in_units_of_their_own_range() -> None:
    part = Counted(5, 0.01)
    wanted = ActionNormaliser.fit([e.actions for e in part])
    for mixed, plain in zip(BalancedRobots({"a": part}, episodes=None, seed=0), part.episodes, strict=True):
        np.testing.assert_allclose(mixed.actions, wanted.apply(plain.actions))
        assert mixed.actions.dtype == np.float32


def test_a_pass_is_spared_where_another_has_looked() -> None:
    part, looked = Counted(5, 1.0), {}
    first = [e.id for e in BalancedRobots({"a": part}, episodes=3, seed=0, looked=looked)]
    assert [e.id for e in BalancedRobots({"a": part}, episodes=3, seed=0, looked=looked)] == first
    assert part.begun == 3


def test_widths_that_differ_are_refused() -> None:
    other = Counted(2, 1.0)
    other.spec = ActionSpec.unknown(7, 5.0)
    with pytest.raises(StageError, match="one width; these have: a 3, b 7"):
        BalancedRobots({"a": Counted(2, 1.0), "b": other}, episodes=None, seed=0)
