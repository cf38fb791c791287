"""Meta-World v3: 50 tabletop tasks for one arm, each with a scripted expert.

Yu et al., "Meta-World" (arXiv 1910.10897); the v3 environments of the `metaworld` package. Actions move the hand by
up to a centimetre along x, y, z a step and open or close the gripper.
"""

from __future__ import annotations

import hashlib
import warnings
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.benchmarks.metaworld_tasks import MT10, PLAIN, instructions_for
from embodied_midtrain.benchmarks.metaworld_things import FORWARD, OPEN, WRIST_CAMERA, gripper_of, props_of
from embodied_midtrain.benchmarks.protocol import Instructions, check_tasks
from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.extras import require
from embodied_midtrain.simulation.camera import FreeCamera
from embodied_midtrain.simulation.rendering import SceneRenderer, prepare_mujoco
from embodied_midtrain.simulation.truth import AGENT, WRIST, Truth

CAMERA = FreeCamera(lookat=(0.0, 0.68, 0.13), distance=0.95, azimuth=130.0, elevation=-30.0)
"""Close to the table, over the arm's shoulder: gripper, objects and goals of all tasks are in view."""

SPEC = ActionSpec(
    names=("x", "y", "z", "gripper"),
    kind="delta",
    frame="world",
    rotation="none",
    gripper=3,
    gripper_closed=1,
    low=(-1.0, -1.0, -1.0, -1.0),
    high=(1.0, 1.0, 1.0, 1.0),
    # Five simulation steps of 2.5 ms an action.
    rate=80.0,
)

HORIZON = 200
LONG_HORIZON = 400
LONG_TASKS = frozenset({"bin-picking-v3", "disassemble-v3", "peg-insert-side-v3", "push-back-v3", "stick-pull-v3"})
"""Those whose expert takes more than 130 steps from some start; on the others it needs 40 to 130."""


class MetaWorld:
    """The benchmark: see `protocol.Benchmark`."""

    name = "metaworld"
    tasks: tuple[str, ...] = tuple(PLAIN)
    sets: ClassVar[dict[str, tuple[str, ...]]] = {"mt10": MT10, "mt50": tasks}
    spec = SPEC

    def horizon(self, task: str) -> int:
        return LONG_HORIZON if task in LONG_TASKS else HORIZON

    def instructions(self, task: str) -> Instructions:
        check_tasks(self, [task])
        return instructions_for(task)

    def make(self, task: str, size: int) -> MetaWorldSimulation:
        check_tasks(self, [task])
        return MetaWorldSimulation(task, size)


class MetaWorldSimulation:
    """One task's world and camera: see `protocol.Simulation`.

    Raises:
        StageError: where metaworld or the rendering libraries are missing.
    """

    def __init__(self, task: str, size: int, camera: FreeCamera = CAMERA, environment: type | None = None) -> None:
        """`environment` stands in for the class that Meta-World has for the task."""
        self._mujoco = prepare_mujoco()
        self._env: Any = (environment or require("metaworld.env_dict", "sim").ENV_CLS_MAP[task])()
        self._expert = require("metaworld.policies", "sim").ENV_POLICY_MAP[task]()
        # The classes are made to be driven by Meta-World's own task objects (a fixed set of 50 starts a task). Set by
        # hand, each `seed` draws a start of its own, and the expert sees the goal. The observation space is a cached
        # property that would clip the goal to zero: forget it.
        self._env._set_task_called = True
        self._env._freeze_rand_vec = False
        self._env.seeded_rand_vec = True
        self._env._partially_observable = False
        self._env.__dict__.pop("sawyer_observation_space", None)
        self._env.max_path_length = 1_000_000  # The horizon is the caller's to keep.
        self._renderer: SceneRenderer | None = None
        self._task, self._size, self._camera = task, size, camera
        self._seen: NDArray[np.float64] | None = None

    def reset(self, state: int) -> None:
        self._env.seed(state)
        self._seen = self._env.reset()[0]
        # Goals are moved after the last forward pass of a reset: without one the first frame shows the old goal.
        self._mujoco.mj_forward(self._env.model, self._env.data)

    def step(self, action: NDArray[np.float32]) -> bool:
        self._seen, _, _, _, info = self._env.step(np.clip(np.asarray(action, np.float32), -1.0, 1.0))
        return bool(info["success"])

    def frame(self) -> NDArray[np.uint8]:
        return self._drawer().render(self._env.data)

    def _drawer(self) -> SceneRenderer:
        if self._renderer is None:
            self._renderer = SceneRenderer(self._env.model, (self._size, self._size), self._camera)
        return self._renderer

    def truth(self) -> Truth:
        """See `protocol.Truthful`."""
        model = self._env.model
        views: dict[str, FreeCamera | str] = {AGENT: self._camera, WRIST: WRIST_CAMERA}
        props = props_of(self._task, model, self.names())
        return Truth(
            model, self._env.data, self._drawer(), views, props, gripper_of(model), forward=FORWARD, opening=OPEN
        )

    def names(self) -> dict[str, str]:
        """What bodies are called that Meta-World's own scenes do not have."""
        return {}

    def expert(self) -> NDArray[np.float32]:
        assert self._seen is not None, "reset first"
        with warnings.catch_warnings():  # "Constant(s) may be too high", at every step.
            warnings.simplefilter("ignore", UserWarning)
            action = self._expert.get_action(self._seen)
        clipped: NDArray[np.float32] = np.clip(np.asarray(action, np.float32), -1.0, 1.0)
        return clipped

    def proprioception(self) -> NDArray[np.float32]:
        """Hand position (metres, world) and how far the gripper is open (0 to 1): [4]."""
        assert self._seen is not None, "reset first"
        return self._seen[:4].astype(np.float32)

    def start(self) -> bytes:
        """A digest of all that the expert sees (hand, objects, goal)."""
        assert self._seen is not None, "reset first"
        return hashlib.sha256(np.round(self._seen, 6).tobytes()).digest()[:8]

    @property
    def env(self) -> Any:
        """Meta-World's own environment, for what the protocol has no word for."""
        return self._env

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
