import threading
import time

import pytest

from embodied_midtrain.training.ahead import Ahead


def test_it_hands_out_in_order_and_works_ahead():
    made: list[int] = []

    def make(step: int) -> int:
        made.append(step)
        return step * step

    with Ahead(make, 20, depth=2) as ahead:
        assert ahead.get(3) == 9
        deadline = time.monotonic() + 5
        while len(made) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        # Two are ready, one more waits for room.
        assert made == [3, 4, 5, 6]
        assert [ahead.get(step) for step in range(4, 20)] == [step * step for step in range(4, 20)]


def test_an_error_comes_where_its_data_would():
    def make(step: int) -> int:
        if step == 2:
            raise ValueError("broken")
        return step

    with Ahead(make, 5) as ahead:
        assert [ahead.get(0), ahead.get(1)] == [0, 1]
        with pytest.raises(ValueError, match="broken"):
            ahead.get(2)


def test_another_step_than_the_next_starts_anew():
    with Ahead(lambda step: step, 100) as ahead:
        assert [ahead.get(5), ahead.get(6), ahead.get(2), ahead.get(3)] == [5, 6, 2, 3]


def test_waiting_is_counted_and_the_thread_ends():
    before = threading.active_count()
    with Ahead(lambda step: time.sleep(0.05) or step, 1000) as ahead:
        ahead.get(0)
        ahead.get(1)
        assert ahead.waited > 0.05
    assert threading.active_count() == before
