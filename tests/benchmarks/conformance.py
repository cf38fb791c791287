"""What every benchmark behind the protocol must do: tests that Meta-World's and LIBERO's share."""

import numpy as np

from embodied_midtrain.benchmarks.protocol import check_tasks, evaluation_state, training_state


def a_benchmark_says_what_it_is(benchmark):
    check_tasks(benchmark, benchmark.tasks)
    for task in benchmark.tasks:
        words = benchmark.instructions(task)
        for wording in (*words.training, *words.held_out):
            assert wording == wording.strip() and not wording.endswith(".") and wording
        assert benchmark.horizon(task) > 0
    for tasks in getattr(benchmark, "sets", {}).values():
        check_tasks(benchmark, tasks)


def equal_states_are_equal_and_others_not(simulation):
    frames, starts = [], []
    for state in (1, 3, 1):
        simulation.reset(state)
        frames.append(simulation.frame())
        starts.append(simulation.start())
    assert starts[0] == starts[2] != starts[1]
    assert (frames[0] == frames[2]).all() and (frames[0] != frames[1]).any()


def what_follows_a_reset_depends_on_nothing_before_it(used, fresh, state=7, steps=10):
    def play(simulation):
        simulation.reset(state)
        for _ in range(steps):
            simulation.step(simulation.expert())
        return simulation.frame(), simulation.proprioception()

    for a, b in zip(play(used), play(fresh), strict=True):
        assert (a == b).all()


def starts_of_training_and_evaluation_are_all_different(simulation, count=5):
    starts = set()
    for number in range(count):
        for state in (training_state(0, number), evaluation_state(number)):
            simulation.reset(state)
            starts.add(simulation.start())
    assert len(starts) == 2 * count
    assert not {training_state(s, n) for s in range(3) for n in range(50)} & {evaluation_state(n) for n in range(200)}


def actions_beyond_the_bounds_are_cut_off(simulation, action):
    ends = []
    for size in (1.0, 9.0):
        simulation.reset(5)
        for _ in range(5):
            simulation.step(np.where(np.abs(action) == 1, action * size, action).astype(np.float32))
        ends.append(simulation.proprioception())
    assert (ends[0] == ends[1]).all()
