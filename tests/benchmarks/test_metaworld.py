"""Meta-World behind the protocol: tasks, words, starts, and above all that the picture shows what the task is about."""

import numpy as np
import pytest

from embodied_midtrain.benchmarks.metaworld import CAMERA, MetaWorld, MetaWorldSimulation
from embodied_midtrain.benchmarks.protocol import (
    check_tasks,
    evaluation_state,
    open_benchmark,
    training_state,
)


@pytest.fixture(scope="module")
def reach():
    simulation = MetaWorldSimulation("reach-v3", 128)
    yield simulation
    simulation.close()


def test_every_task_of_the_package_has_words_and_an_expert():
    from metaworld.env_dict import ENV_CLS_MAP
    from metaworld.policies import ENV_POLICY_MAP

    benchmark = MetaWorld()
    assert set(benchmark.tasks) == set(ENV_CLS_MAP) == set(ENV_POLICY_MAP) and len(benchmark.tasks) == 50
    plain = [benchmark.instructions(task).training[0] for task in benchmark.tasks]
    assert len(set(plain)) == 50, "no two tasks ask for the same"
    for task in benchmark.tasks:
        words = benchmark.instructions(task)
        assert len(words.training) >= 3
        for wording in (*words.training, *words.held_out):
            assert wording == wording.strip() and not wording.endswith(".")


def test_the_goal_is_in_the_first_frame_where_it_will_be(reach):
    """Meta-World moves the goal after the reset's last forward pass: a first frame may show the one before."""
    for state in (1, 3, 5):
        reach.reset(state)
        first = reach.frame().astype(int)
        goal = reach.env._target_pos
        x, y, _ = CAMERA.project(goal, (128, 128))
        assert 4 < x < 124 and 4 < y < 124, "in view"
        red = first[int(y), int(x)]
        assert red[0] > 60 and red[0] > 2 * red[1:].max(), f"state {state}: {red} at the goal"


def test_the_goal_moves_with_the_state_and_equal_states_are_equal(reach):
    frames, starts = [], []
    for state in (1, 3, 1):
        reach.reset(state)
        frames.append(reach.frame())
        starts.append(reach.start())
    assert starts[0] == starts[2] != starts[1]
    assert (frames[0] == frames[2]).all() and (frames[0] != frames[1]).any()


def test_what_follows_a_reset_depends_on_nothing_before_it(reach):
    def play(simulation):
        simulation.reset(7)
        for _ in range(10):
            simulation.step(simulation.expert())
        return simulation.frame(), simulation.proprioception()

    used = play(reach)
    fresh = MetaWorldSimulation("reach-v3", 128)
    for a, b in zip(used, play(fresh), strict=True):
        assert (a == b).all()
    fresh.close()


@pytest.mark.parametrize("task", ["reach-v3", "pick-place-v3", "push-v3", "drawer-open-v3", "window-close-v3"])
def test_starts_of_training_and_evaluation_are_all_different(task):
    simulation = MetaWorldSimulation(task, 32)
    starts = set()
    for number in range(5):
        for state in (training_state(0, number), evaluation_state(number)):
            simulation.reset(state)
            starts.add(simulation.start())
    assert len(starts) == 10
    assert not {training_state(s, n) for s in range(3) for n in range(50)} & {evaluation_state(n) for n in range(200)}


@pytest.mark.parametrize("task", ["reach-v3", "pick-place-v3", "drawer-open-v3", "door-open-v3"])
def test_the_expert_solves_it_within_the_horizon(task):
    simulation, benchmark = MetaWorldSimulation(task, 32), MetaWorld()
    for number in range(3):
        simulation.reset(evaluation_state(number))
        assert any(simulation.step(simulation.expert()) for _ in range(benchmark.horizon(task))), f"start {number}"


def test_a_wrong_name_gets_the_nearest_right_one():
    benchmark = open_benchmark("metaworld")
    with pytest.raises(ValueError, match="did you mean 'pick-place-v3'"):
        check_tasks(benchmark, ["pick-place"])
    with pytest.raises(ValueError, match="did you mean 'metaworld'"):
        open_benchmark("meta-world")
    with pytest.raises(ValueError, match="named twice"):
        check_tasks(benchmark, ["reach-v3", "reach-v3"])
    with pytest.raises(ValueError, match="at least one task"):
        check_tasks(benchmark, [])
    with pytest.raises(ValueError, match="cannot be opened"):
        open_benchmark("no_such_package.benchmark:Mine")


def test_actions_beyond_the_bounds_are_cut_off(reach):
    ends = []
    for size in (1.0, 9.0):
        reach.reset(5)
        for _ in range(5):
            reach.step(np.array([size, 0, 0, -1], np.float32))
        ends.append(reach.proprioception())
    assert (ends[0] == ends[1]).all()
