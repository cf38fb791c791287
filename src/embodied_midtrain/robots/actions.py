"""Actions in a range that a head can predict: quantiles of the training data to [-1, 1], and back.

The 1st and 99th percentile stand for the range, so that a few wild actions do not squeeze all others together (as
OpenVLA, arXiv 2406.09246, and VLM4VLA, arXiv 2601.03309, do). The gripper's dimension is among them; whoever
trains treats it as open or closed instead (`policies.codec`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.robots.quantiles import QuantileSketch

LOWER, UPPER = 0.01, 0.99
FLOOR = 1e-3
"""Smallest half range: a dimension that hardly moves must not have its noise blown up to full size."""


@dataclass(frozen=True, slots=True)
class ActionNormaliser:
    """Per dimension, the middle and half the width of the range that becomes [-1, 1].

    Attributes:
        middle, half: one value a dimension, in the spec's units.
        limit: where given, `apply` cuts off beyond +-limit and stretches what is left to [-1, 1]. VLM4VLA and
            RoboVLMs do so with 0.65, after the quantiles. None: nothing is cut off.
    """

    middle: tuple[float, ...]
    half: tuple[float, ...]
    limit: float | None = None

    def __post_init__(self) -> None:
        if len(self.middle) != len(self.half):
            raise ValueError(f"{len(self.middle)} middles for {len(self.half)} half ranges")
        if not (np.isfinite(self.middle).all() and np.isfinite(self.half).all()) or min(self.half, default=1.0) <= 0:
            raise ValueError("middles and half ranges must be finite, and half ranges above 0")
        if self.limit is not None and not 0 < self.limit <= 1:
            raise ValueError(f"limit {self.limit}: wanted above 0, at most 1")

    @classmethod
    def fit(
        cls, actions: Iterable[NDArray[np.float32]], *, floor: float = FLOOR, limit: float | None = None
    ) -> ActionNormaliser:
        """From the actions of episodes, each [time, width], in one pass and flat memory.

        Raises:
            ValueError: where there are none, where widths differ, or on a value that is no number.
        """
        sketch: QuantileSketch | None = None
        for episode in map(np.asarray, actions):
            if episode.ndim != 2 or (sketch is not None and episode.shape[1] != sketch.width):
                before = "" if sketch is None else f" after others of width {sketch.width}"
                raise ValueError(f"episodes with actions of different shapes: {list(episode.shape)}{before}")
            if not np.isfinite(episode).all():
                raise ValueError("actions hold values that are no numbers; 'check' episodes before")
            sketch = sketch or QuantileSketch(episode.shape[1])
            sketch.add(episode)
        if sketch is None or not sketch.count:
            raise ValueError("no actions to fit a range to")
        low, high = sketch.quantiles([LOWER, UPPER])
        half = np.maximum((high - low) / 2, floor)
        return cls(tuple(map(float, (low + high) / 2)), tuple(map(float, half)), limit)

    @property
    def width(self) -> int:
        return len(self.middle)

    def apply(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        """[..., width] in the spec's units -> the same in units of the range; outliers lie beyond +-1."""
        self._check(actions)
        scaled = (np.asarray(actions, np.float64) - self.middle) / self.half
        if self.limit is not None:
            scaled = np.clip(scaled, -self.limit, self.limit) / self.limit
        return scaled.astype(np.float32)

    def invert(self, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """The inverse of `apply` (of what was not cut off)."""
        self._check(scaled)
        stretched = np.asarray(scaled, np.float64) * (1.0 if self.limit is None else self.limit)
        actions: NDArray[np.float32] = (stretched * self.half + self.middle).astype(np.float32)
        return actions

    def _check(self, values: NDArray[Any]) -> None:
        if values.shape[-1] != self.width:
            raise ValueError(f"actions of width {values.shape[-1]}; this range was fitted to {self.width}")

    def to_json(self) -> dict[str, Any]:
        return {"middle": list(self.middle), "half": list(self.half), "limit": self.limit}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ActionNormaliser:
        """Raises: ValueError, where it is not what `to_json` gave."""
        try:
            return cls(_floats(value["middle"]), _floats(value["half"]), value["limit"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an action range: {error}") from error


def _floats(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def check_specs(wanted: ActionSpec, given: ActionSpec, *, wanted_by: str, given_by: str) -> None:
    """Raise `StageError` where two sides do not mean the same by an action, naming each difference."""
    if differences := wanted.differences(given):
        raise StageError(
            f"{wanted_by} and {given_by} do not mean the same by an action: {'; '.join(differences)} "
            f"({wanted_by} first). Train on data of the robot that you roll out on."
        )
