"""Meta-World behind the protocol: tasks, words, starts, and above all that the picture shows what the task is about."""

import numpy as np
import pytest

from embodied_midtrain.benchmarks.metaworld import CAMERA, MetaWorld, MetaWorldSimulation
from embodied_midtrain.benchmarks.protocol import (
    check_tasks,
    chosen_tasks,
    evaluation_state,
    open_benchmark,
)
from tests.benchmarks import conformance


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


def test_equal_states_are_equal_and_others_not(reach):
    conformance.equal_states_are_equal_and_others_not(reach)


def test_what_follows_a_reset_depends_on_nothing_before_it(reach):
    fresh = MetaWorldSimulation("reach-v3", 128)
    conformance.what_follows_a_reset_depends_on_nothing_before_it(reach, fresh)
    fresh.close()


@pytest.mark.parametrize("task", ["reach-v3", "pick-place-v3", "push-v3", "drawer-open-v3", "window-close-v3"])
def test_starts_of_training_and_evaluation_are_all_different(task):
    conformance.starts_of_training_and_evaluation_are_all_different(MetaWorldSimulation(task, 32))


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
    conformance.actions_beyond_the_bounds_are_cut_off(reach, np.array([1, 0, 0, -1]))


def test_named_sets_are_the_packages():
    from metaworld.env_dict import MT10_V3, MT50_V3

    benchmark = MetaWorld()
    conformance.a_benchmark_says_what_it_is(benchmark)
    assert chosen_tasks(benchmark, ["mt10"]) == tuple(MT10_V3)
    assert set(chosen_tasks(benchmark, ["mt50"])) == set(MT50_V3) == set(chosen_tasks(benchmark, ["all"]))
    with pytest.raises(ValueError, match="named twice"):
        chosen_tasks(benchmark, ["mt10", "reach-v3"])
