"""RoboCasa's GR-1 tabletop tasks as a benchmark of vla-eval, which has RoboCasa for a single arm only.

Written after the environments' published interface (robocasa-gr1-tabletop-tasks: one gymnasium id a task, pictures
and joints under "video." and "state." keys, actions by body part); they cannot be had from a package registry.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vla_eval.benchmarks.base import StepBenchmark, StepResult
from vla_eval.specs import IMAGE_RGB, LANGUAGE, DimSpec

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.extras import require

HOME = "robocasa-gr1-tabletop-tasks (github.com/robocasa)"
PARTS = (("left_arm", 7), ("right_arm", 7), ("left_hand", 6), ("right_hand", 6), ("waist", 3))
"""Body parts in the order of an action, with their joints."""
WIDTH = sum(joints for _, joints in PARTS)
VIDEO = ("video.ego_view_bg_crop_pad_res256_freq20", "video.ego_view")
INSTRUCTION = ("annotation.human.coarse_action", "annotation.human.action.task_description")
TASKS = (
    "PnPCupToDrawerClose",
    "PnPPotatoToMicrowaveClose",
    "PnPMilkToMicrowaveClose",
    "PnPBottleToCabinetClose",
    "PnPWineToCabinetClose",
    "PnPCanToDrawerClose",
    "PosttrainPnPNovelFromCuttingboardToBasketSplitA",
    "PosttrainPnPNovelFromCuttingboardToCardboardboxSplitA",
    "PosttrainPnPNovelFromCuttingboardToPanSplitA",
    "PosttrainPnPNovelFromCuttingboardToPotSplitA",
    "PosttrainPnPNovelFromCuttingboardToTieredbasketSplitA",
    "PosttrainPnPNovelFromPlacematToBasketSplitA",
    "PosttrainPnPNovelFromPlacematToBowlSplitA",
    "PosttrainPnPNovelFromPlacematToPlateSplitA",
    "PosttrainPnPNovelFromPlacematToTieredshelfSplitA",
    "PosttrainPnPNovelFromPlateToBowlSplitA",
    "PosttrainPnPNovelFromPlateToCardboardboxSplitA",
    "PosttrainPnPNovelFromPlateToPanSplitA",
    "PosttrainPnPNovelFromPlateToPlateSplitA",
    "PosttrainPnPNovelFromTrayToCardboardboxSplitA",
    "PosttrainPnPNovelFromTrayToPlateSplitA",
    "PosttrainPnPNovelFromTrayToPotSplitA",
    "PosttrainPnPNovelFromTrayToTieredbasketSplitA",
    "PosttrainPnPNovelFromTrayToTieredshelfSplitA",
)


class RoboCasaGR1(StepBenchmark):
    """See `vla_eval.benchmarks.base.StepBenchmark`.

    Args:
        tasks: of `TASKS`; by default all.
        seed: episode i starts from seed + i.
        max_steps: after which an episode has failed.
    """

    _ALL_RECORD_FIELDS = frozenset({"reward", "done", "success"})

    def __init__(self, tasks: list[str] | None = None, seed: int = 0, max_steps: int = 720) -> None:
        super().__init__()
        if unknown := sorted(set(tasks or ()) - set(TASKS)):
            raise ValueError(f"RoboCasa GR1 has no task {', '.join(unknown)}")
        self._tasks = tuple(tasks or TASKS)
        self._seed, self._limit = seed, max_steps
        self._env: Any = None
        self._of = ""
        self._steps = 0

    def get_tasks(self) -> list[dict[str, Any]]:
        return [{"name": task} for task in self._tasks]

    def reset(self, task: dict[str, Any]) -> Any:
        if self._of != task["name"]:
            self.cleanup()
            # The environments are registered when these are imported.
            try:
                for module in ("robocasa", "robosuite"):
                    importlib.import_module(module)
            except ModuleNotFoundError as error:
                raise StageError(f"{error.name} is missing: {HOME} is installed from its repository.") from error
            gymnasium = require("gymnasium", "sim")
            name = f"gr1_unified/{task['name']}_GR1ArmsAndWaistFourierHands_Env"
            self._env, self._of = gymnasium.make(name, enable_render=True), task["name"]
        self._steps = 0
        observation, _ = self._env.reset(seed=self._seed + int(task.get("episode_idx", 0)))
        return observation

    def step(self, action: dict[str, Any]) -> StepResult:
        values = np.asarray(action["actions"], np.float64)
        if values.shape != (WIDTH,):
            raise ValueError(f"RoboCasa GR1 takes actions of {WIDTH} numbers, got {list(values.shape)}")
        observation, reward, done, _, info = self._env.step(by_part(values))
        self._steps += 1
        success = bool(np.any(info.get("success", False)))
        self._recorder.record_step(reward=float(reward), done=bool(done), success=success)
        return StepResult(observation, float(reward), bool(done), {"success": success})

    def make_obs(self, raw_obs: Any, task: dict[str, Any]) -> dict[str, Any]:
        frame = np.asarray(_first(raw_obs, VIDEO), np.uint8)
        text = _first(raw_obs, INSTRUCTION)
        return {
            "images": {"ego_view": np.ascontiguousarray(frame.reshape(frame.shape[-3:]))},
            "task_description": str(text if isinstance(text, str) else np.ravel(np.asarray(text, object))[0]),
        }

    def check_done(self, step_result: StepResult) -> bool:
        return bool(step_result.done or step_result.info.get("success") or self._steps >= self._limit)

    def get_step_result(self, step_result: StepResult) -> dict[str, Any]:
        return {"success": bool(step_result.info.get("success", False))}

    def get_metadata(self) -> dict[str, Any]:
        return {"max_steps": self._limit, "seed": self._seed}

    def get_action_spec(self) -> dict[str, DimSpec]:
        return {"actions": DimSpec("actions", WIDTH, "absolute_joint")}

    def get_observation_spec(self) -> dict[str, DimSpec]:
        return {"ego_view": IMAGE_RGB, "language": LANGUAGE}

    def cleanup(self) -> None:
        if self._env is not None:
            self._env.close()
        self._env, self._of = None, ""


def by_part(values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """An action [29] as the environments take it."""
    found, at = {}, 0
    for part, joints in PARTS:
        found[f"action.{part}"] = values[at : at + joints]
        at += joints
    return found


def _first(observation: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        if name in observation:
            return observation[name]
    raise KeyError(f"the observation has none of {', '.join(names)}")
