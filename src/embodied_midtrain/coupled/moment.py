"""One look of a trace, as the families of questions see it: what is clear, what has a name, where it is."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.coupled.phases import Phase
from embodied_midtrain.coupled.trace import Things, Trace, View
from embodied_midtrain.samples import Region
from embodied_midtrain.simulation.truth import AGENT, FIRST, WRIST
from embodied_midtrain.sources.asking import Question

LEAST_PART = 0.001
"""A thing that covers less of the picture is not asked about."""
LEAST_VISIBLE = 0.45
"""Nor is one of which less than this part of its outline is seen."""
DIGITS = 3
"""Of coordinates."""


@dataclass(frozen=True)
class Asked(Question):
    """A question about pictures of one look.

    Attributes:
        views: names of the cameras, in the order in which the question has their pictures.
    """

    views: tuple[str, ...] = ()


@dataclass(eq=False)
class Shot:
    """What one camera shows at one look."""

    view: View
    look: int
    things: Things | None

    @property
    def name(self) -> str:
        return self.view.name

    @functools.cached_property
    def seen(self) -> NDArray[np.uint8]:
        """See `View.seen`. [height, width]"""
        assert self.view.seen is not None
        return self.view.seen[self.look]

    @functools.cached_property
    def pixels(self) -> NDArray[np.int64]:
        """How many pixels have each of the meanings of `seen`. [256]"""
        return np.bincount(self.seen.ravel(), minlength=256)

    @functools.cached_property
    def clear(self) -> tuple[int, ...]:
        """The things that are seen well enough to be asked about."""
        if self.things is None or self.view.seen is None or self.view.outlines is None:
            return ()
        seen = self.pixels[FIRST : FIRST + len(self.things)]
        enough = (seen >= LEAST_PART * self.seen.size) & (seen >= LEAST_VISIBLE * self.view.outlines[self.look])
        return tuple(np.nonzero(enough & (seen > 0))[0].tolist())

    @functools.cached_property
    def named(self) -> tuple[int, ...]:
        """The clear ones whose name means one thing only."""
        return tuple(n for n in self.clear if self.things is not None and self.things.unique(n))

    @functools.cached_property
    def _where(self) -> dict[int, tuple[NDArray[Any], ...]]:
        return {n: np.nonzero(self.view.mask(self.look, n)) for n in self.clear}

    @functools.cached_property
    def points(self) -> dict[int, Region]:
        """For each clear thing the pixel of its mask that is nearest to the mask's middle."""
        found = {}
        for n, (rows, columns) in self._where.items():
            nearest = int(((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2).argmin())
            found[n] = self.point(columns[nearest] + 0.5, rows[nearest] + 0.5)
        return found

    @functools.cached_property
    def boxes(self) -> dict[int, Region]:
        """For each clear thing the smallest box around its mask."""
        height, width = self.view.size
        found = {}
        for n, (rows, columns) in self._where.items():
            edges = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height)
            found[n] = Region("box", tuple(round(float(edge), DIGITS) for edge in edges))
        return found

    def hand(self, trace: Trace, steps: Iterable[int]) -> NDArray[np.float64] | None:
        """The gripper at these steps as (x, y, depth), x and y as parts of the picture, nan where the track was lost;
        None where neither a track nor a calibration tells. [n, 3]"""
        assert trace.place is not None
        found = self.view.hand(trace.place, self.look, np.array(list(steps), np.int64))
        height, width = self.view.size
        return None if found is None else found / (width, height, 1.0)

    def point(self, x: float, y: float) -> Region:
        """From pixels."""
        height, width = self.view.size
        return Region("point", (round(float(x) / width, DIGITS), round(float(y) / height, DIGITS)))


@dataclass(eq=False)
class Moment:
    """One look.

    Attributes:
        trace: the episode.
        look: its number.
        phases: the episode's sub-actions.
        rng: for what may be chosen freely.
        left: what could not be asked: (kind, reason) and how often.
    """

    trace: Trace
    look: int
    phases: tuple[Phase, ...]
    rng: np.random.Generator
    left: Counter[tuple[str, str]] = field(default_factory=Counter)

    @functools.cached_property
    def shots(self) -> tuple[Shot, ...]:
        return tuple(Shot(view, self.look, self.trace.things) for view in self.trace.views)

    @functools.cached_property
    def main(self) -> Shot:
        """Of the agent's camera, or the first one."""
        return self.shot(AGENT) or self.shots[0]

    @functools.cached_property
    def wrist(self) -> Shot | None:
        return self.shot(WRIST)

    def shot(self, name: str) -> Shot | None:
        return next((shot for shot in self.shots if shot.name == name), None)

    @property
    def step(self) -> int:
        return int(self.trace.looks[self.look])

    @functools.cached_property
    def place(self) -> NDArray[np.float64] | None:
        """Of the gripper, world frame, metres. [3]"""
        return None if self.trace.place is None else np.asarray(self.trace.place[self.step], float)

    @functools.cached_property
    def phase(self) -> int | None:
        """Number of the sub-action that this step is in."""
        return next((n for n, phase in enumerate(self.phases) if phase.start <= self.step < phase.stop), None)

    def centre(self, thing: int) -> NDArray[np.float64]:
        """Middle of a thing's box, world frame, metres. [3]"""
        assert self.trace.things is not None
        return np.asarray(self.trace.things.centres[self.look, thing], float)

    def called(self, thing: int) -> str:
        assert self.trace.things is not None
        return self.trace.things.named[thing].name

    def leave(self, reason: str, kinds: Iterable[str], times: int = 1) -> None:
        """Count that questions of these kinds could not be asked here."""
        for kind in kinds if times else ():
            self.left[kind, reason] += times
