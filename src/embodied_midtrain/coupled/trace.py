"""The neutral form of what is true of one episode: where hand and things were, and what the cameras showed.

Questions are made from traces alone. Simulators give all of a trace (`coupled.recording`); real data what they have
(`coupled.measured`): whatever is not known is absent, and questions that need it are not asked.

Words: a step is one action of the episode; a look is a step of which the pictures are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.episodes import Frames
from embodied_midtrain.simulation.camera import Pinhole
from embodied_midtrain.simulation.truth import FIRST


@dataclass(frozen=True, eq=False)
class Named:
    """One thing of the scene.

    Attributes:
        name: how it is called, without article.
        grasped: whether a gripper can take hold of it; None where that is not clear.
    """

    name: str
    grasped: bool | None = None


@dataclass(frozen=True, eq=False)
class Things:
    """All things of the scene.

    Attributes:
        named: what they are.
        low, high: corners of each one's box along the world's axes, metres. [looks, things, 3]
    """

    named: tuple[Named, ...]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.named)

    @property
    def centres(self) -> NDArray[np.float32]:
        """[looks, things, 3]"""
        middle: NDArray[np.float32] = (self.low + self.high) / np.float32(2)
        return middle

    def unique(self, number: int) -> bool:
        """Whether its name means this one only."""
        return [thing.name for thing in self.named].count(self.named[number].name) == 1


@dataclass(frozen=True, eq=False)
class View:
    """What one camera showed.

    Attributes:
        name: "agent" for the one that policies see, "wrist" for one on the hand, or the data's own.
        frames: of the looks. [looks, height, width, 3]
        cameras: its geometry at each look, where it is known.
        seen: which thing each pixel shows (`simulation.truth`: `NOTHING`, `ARM`, `FINGERS`, `FIRST` + n), where that
            is known. [looks, height, width]
        outlines: pixels within the outline of each thing, hidden and outside ones included. [looks, things]
        track: where the gripper is in its picture at each step, as (x, y) in pixels, where that was tracked and the
            camera stands still; nan where it was lost. It goes before `cameras`. [steps, 2]
    """

    name: str
    frames: Frames
    cameras: Sequence[Pinhole] | None = None
    seen: NDArray[np.uint8] | None = None
    outlines: NDArray[np.float32] | None = None
    track: NDArray[np.float32] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.frames.shape[1], self.frames.shape[2]

    def hand(self, place: NDArray[np.floating], look: int, steps: NDArray[np.integer]) -> NDArray[np.float64] | None:
        """Where the gripper is at these steps, in the picture of one look: (x, y, depth) in pixels, nan where the track
        was lost; None without track and calibration. `place`: as in `Trace`. [n, 3]"""
        if self.track is not None:
            found = self.track[steps].astype(np.float64)
            return np.concatenate([found, np.where(np.isnan(found[:, :1]), np.nan, 1.0)], 1)
        return None if self.cameras is None else self.cameras[look].project(place[steps])

    def mask(self, look: int, thing: int) -> NDArray[np.bool_]:
        """The pixels that show a thing. [height, width]"""
        assert self.seen is not None
        return self.seen[look] == FIRST + thing


@dataclass(frozen=True, eq=False)
class Trace:
    """One episode.

    Attributes:
        id: unique within the data set.
        task, instruction: as in `episodes.Episode`.
        place: between the fingertips at each step, world frame, metres. [steps, 3]
        opening: of the gripper at each step, 0 closed to 1 open. [steps]
        touched, held: the thing that a finger touches, that fingers hold, or -1. [steps]
        looks: the steps of which pictures are kept, rising. [looks]
        views: the cameras' pictures at the looks.
        things: what is there.
        forward: the way that the robot faces, of length 1, level. [3]
        fingers: points of each finger's surface, world frame, metres. [looks, fingers, points, 3]
        rate: steps a second.
    """

    id: str
    task: str
    instruction: str
    looks: NDArray[np.int64]
    views: tuple[View, ...]
    place: NDArray[np.float32] | None = None
    opening: NDArray[np.float32] | None = None
    touched: NDArray[np.int64] | None = None
    held: NDArray[np.int64] | None = None
    things: Things | None = None
    forward: NDArray[np.float64] | None = None
    fingers: NDArray[np.float32] | None = None
    rate: float = 0.0

    def view(self, name: str) -> View | None:
        return next((view for view in self.views if view.name == name), None)
