"""Stages on a Ray cluster: each one task, on whichever node has room; all nodes reach the study's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.extras import require
from embodied_midtrain.features.engines import EngineConfig
from embodied_midtrain.features.ray_engine import connected, least_cores, shares
from embodied_midtrain.studies.calling import House
from embodied_midtrain.studies.engine import State, do, first_line
from embodied_midtrain.studies.graph import Stage


class OnRay:
    """As many stages at a time as the cluster has room for.

    Args:
        count, cpus, gpus: of stages at a time, and what each takes.
    """

    def __init__(self, ray: Any, count: int, cpus: int, gpus: float) -> None:
        self._ray, self._count = ray, count
        # A stage that was lost with its node goes on from what it has finished.
        self._do = ray.remote(do).options(num_cpus=cpus, num_gpus=gpus, max_retries=1)
        self._at: dict[Any, Stage] = {}

    @property
    def free(self) -> bool:
        return len(self._at) < self._count

    @property
    def busy(self) -> bool:
        return bool(self._at)

    def start(self, house: House, stage: Stage) -> None:
        self._at[self._do.remote(house, stage)] = stage

    def wait(self) -> tuple[Stage, State]:
        (reference, *_), _ = self._ray.wait(list(self._at), num_returns=1)
        stage = self._at.pop(reference)
        try:
            state: State = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, StageError):
                raise error.cause from error
            return stage, State("failed", first_line(error.cause))
        except self._ray.exceptions.RayError as error:
            return stage, State("failed", f"lost with its node: {first_line(error)}")
        return stage, state


@contextmanager
def on_ray(address: str, gpus: float) -> Iterator[OnRay]:
    """A cluster, or a Ray that is started here and ends with the block.

    Raises:
        StageError: no Ray, no cluster, or no room for a stage.
    """
    ray = require("ray", "ray")
    with connected(ray, address):
        yield OnRay(ray, *shares(ray.cluster_resources(), least_cores(ray), EngineConfig(engine="ray", gpus=gpus)))
