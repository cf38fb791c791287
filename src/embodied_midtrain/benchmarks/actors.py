"""Actors that are no policies: the floor and the ceiling that a policy's success stands between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.episodes import ActionSpec


@dataclass(frozen=True)
class RandomActor:
    """Uniformly random actions, the same for the same frame: what success costs without looking."""

    spec: ActionSpec
    chunk: int = 10
    executed: int = 5
    size: int = 64
    seed: int = 0

    @property
    def identity(self) -> str:
        return f"random {self.seed}"

    def act(self, frames: NDArray[np.uint8], instructions: list[str]) -> NDArray[np.float32]:
        """See `protocol.Actor`."""
        low, high = np.asarray(self.spec.low), np.asarray(self.spec.high)
        shape = (self.chunk, self.spec.width)
        draws = [np.random.default_rng([self.seed, int(f.sum())]).uniform(low, high, shape) for f in frames]
        return np.stack(draws).astype(np.float32)


@dataclass(frozen=True)
class ExpertActor:
    """Stands for the benchmark's scripted expert, which sees the simulator's state and no frames: the ceiling.

    `rollout` asks each simulation itself; `act` cannot be answered from frames.
    """

    spec: ActionSpec
    chunk: int = 5
    executed: int = 5
    size: int = 128

    @property
    def identity(self) -> str:
        return "scripted expert"

    def act(self, frames: NDArray[np.uint8], instructions: list[str]) -> NDArray[np.float32]:
        """Raises: TypeError, always."""
        raise TypeError("the scripted expert sees the simulator's state; ask the simulation")
