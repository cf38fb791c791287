"""vla-eval's LIBERO with its pictures drawn as this package draws them.

vla-eval leaves drawing to robosuite: shadows, anti-aliasing, 256 pixels. The demonstrations of `emt demos` and the
built-in benchmark do without, at the policy's size. Everything else stays vla-eval's own, so that the two loops can be
compared frame by frame, and a policy of our demonstrations is shown what it knows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from vla_eval.benchmarks.libero.benchmark import LIBEROBenchmark

from embodied_midtrain.benchmarks.libero_world import CAMERA, hide_collision_shapes
from embodied_midtrain.simulation.rendering import SceneRenderer


class LiberoAsBuiltIn(LIBEROBenchmark):
    """See `vla_eval.benchmarks.libero.benchmark.LIBEROBenchmark`.

    Args:
        size: side of the pictures in pixels; `emt serve` tells the policy's.
    """

    def __init__(self, suite: str = "libero_spatial", size: int = 256, **given: Any) -> None:
        super().__init__(suite=suite, **given)
        self._size = size
        self._renderer: SceneRenderer | None = None

    def reset(self, task: Any) -> Any:
        found = super().reset(task)
        # LIBERO builds its model anew at each reset.
        self._close_renderer()
        model = self._simulator.model._model
        hide_collision_shapes(model)
        self._renderer = SceneRenderer(model, (self._size, self._size), CAMERA)
        return found

    def make_obs(self, raw_obs: Any, task: Any) -> Any:
        look = super().make_obs(raw_obs, task)
        look["images"]["agentview"] = self._mirrored()
        return look

    def cleanup(self) -> None:
        self._close_renderer()
        super().cleanup()

    @property
    def _simulator(self) -> Any:
        assert self._env is not None
        return self._env.env.sim

    def _mirrored(self) -> NDArray[np.uint8]:
        """As vla-eval's own pictures are: turned by 180 degrees from bottom-up, and so mirrored from upright."""
        assert self._renderer is not None
        return np.ascontiguousarray(self._renderer.render(self._simulator.data._data)[:, ::-1])

    def _close_renderer(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
        self._renderer = None
