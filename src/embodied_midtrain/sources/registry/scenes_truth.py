"""What is true of a drawn scene: where each thing is, in the world and in the picture, and how it can be taken.

Positions come from the simulator's state, visibility from its segmentation. Questions are made from these alone.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.extras import require
from embodied_midtrain.samples import Region
from embodied_midtrain.simulation.camera import FreeCamera
from embodied_midtrain.sources.registry.scenes_catalogue import Entry

MIN_PIXELS = 110
"""A thing with fewer visible pixels is not asked about."""
MIN_VISIBLE = 0.45
"""Nor is one of which less than this part of its outline is seen (the rest hidden or outside)."""

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Thing:
    """One object of a scene.

    Attributes:
        body: what the simulator calls it.
        entry: its name and nature.
        points: points of its surface, metres, world frame, z up. [n, 3]
        mask: the pixels that show it. [height, width]
    """

    body: str
    entry: Entry
    points: Points
    mask: Mask

    @property
    def name(self) -> str:
        return self.entry.name

    @functools.cached_property
    def low(self) -> Points:
        return self.points.min(0)

    @functools.cached_property
    def high(self) -> Points:
        return self.points.max(0)

    @property
    def centre(self) -> Points:
        """Middle of its bounding box, world frame. [3]"""
        middle: Points = (self.low + self.high) / 2
        return middle

    @property
    def height(self) -> float:
        """Metres from its lowest to its highest point."""
        return float(self.high[2] - self.low[2])

    @functools.cached_property
    def width(self) -> float:
        """The narrowest opening, in metres, that closes around all of it from above, whichever way it is turned."""
        angles = np.linspace(0, np.pi, 90, endpoint=False)
        along = self.points[:, :2] @ np.stack([np.cos(angles), np.sin(angles)])
        return float((along.max(0) - along.min(0)).min())

    def grip_point(self, camera: FreeCamera) -> Points | None:
        """Where to take it, world frame: its middle, its handle, or the part of its rim nearest to the camera."""
        if self.entry.grip == "handle":
            return _handle(self.points)
        if self.entry.grip == "rim":
            ring = self.points[self.points[:, 2] > self.high[2] - 0.3 * self.height]
            near = (ring[:, :2] - camera.position[:2]) @ camera.axes[2][:2]
            front: Points = ring[near <= near.min() + 0.004].mean(0)
            return front
        return self.centre if self.entry.grip == "around" else None


def _handle(points: Points) -> Points | None:
    """The outer half of what juts out sideways of an otherwise round body; None where nothing does."""
    flat = points[:, :2] - np.median(points[:, :2], axis=0)
    far = np.linalg.norm(flat, axis=1)
    out = flat[far.argmax()] / far.max()
    along, across = flat @ out, flat @ np.array([-out[1], out[0]])
    # A round body is as long as it is wide: what is longer is the handle.
    juts = (along.max() - along.min()) - (across.max() - across.min())
    if juts < 0.015:
        return None
    middle: Points = points[along > along.max() - juts / 2].mean(0)
    return middle


@dataclass(frozen=True, eq=False)
class Scene:
    """One picture with the truth about it.

    Attributes:
        id: unique within the source.
        picture: RGB. [height, width, 3]
        camera: where it was taken from.
        things: every object that is there, seen or not.
        table: the pixels that show what they stand on, where free places on it can be asked for.
        gripper: the robot's, where there is a robot.
    """

    id: str
    picture: NDArray[np.uint8]
    camera: FreeCamera
    things: tuple[Thing, ...]
    table: Mask | None = None
    gripper: Thing | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        height, width = self.picture.shape[:2]
        return height, width

    @functools.cached_property
    def clear(self) -> tuple[Thing, ...]:
        """The things that are seen well enough to be asked about."""
        return tuple(thing for thing in self.things if self.is_clear(thing))

    def is_clear(self, thing: Thing) -> bool:
        seen = int(thing.mask.sum())
        return seen >= MIN_PIXELS and seen >= MIN_VISIBLE * self.outline_area(thing)

    def outline_area(self, thing: Thing) -> float:
        """Pixels within the convex outline of `thing`, hidden and outside ones included."""
        hull = require("scipy.spatial", "sim").ConvexHull(self.pixels(thing)[:, :2])
        return float(hull.volume)

    @functools.cached_property
    def named(self) -> tuple[Thing, ...]:
        """The clear things whose name means one of them only."""
        names = [thing.name for thing in self.things]
        return tuple(thing for thing in self.clear if names.count(thing.name) == 1)

    def pixels(self, thing: Thing) -> Points:
        """`thing`'s points in the picture: x, y, depth. [n, 3]"""
        return self.camera.project(thing.points, self.size)

    def across(self, thing: Thing) -> tuple[float, float]:
        """From where to where `thing` reaches in the picture, left to right, as parts of its width."""
        x = self.pixels(thing)[:, 0] / self.size[1]
        return float(x.min()), float(x.max())

    def away(self, thing: Thing) -> tuple[float, float]:
        """From where to where `thing` reaches along the ground, away from the camera, metres."""
        azimuth = np.deg2rad(self.camera.azimuth)
        far = (thing.points[:, :2] - self.camera.position[:2]) @ np.array([np.cos(azimuth), np.sin(azimuth)])
        return float(far.min()), float(far.max())

    def distance(self, thing: Thing) -> float:
        """Metres from the camera to the thing's middle."""
        return float(np.linalg.norm(thing.centre - self.camera.position))

    def point_on(self, mask: Mask) -> Region:
        """The middle of a mask; where that lies beside it, the nearest pixel of the mask."""
        rows, columns = np.nonzero(mask)
        row, column = rows.mean(), columns.mean()
        nearest = ((rows - row) ** 2 + (columns - column) ** 2).argmin()
        return self.point_at(columns[nearest] + 0.5, rows[nearest] + 0.5)

    def box_of(self, mask: Mask) -> Region:
        """The smallest box around the pixels of a mask."""
        rows, columns = np.nonzero(mask)
        height, width = self.size
        edges = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height)
        return Region("box", tuple(round(float(edge), 4) for edge in edges))

    def point_at(self, x: float, y: float) -> Region:
        """A point from pixels."""
        height, width = self.size
        return Region("point", (round(float(x) / width, 4), round(float(y) / height, 4)))

    def seen_at(self, where: Points, mask: Mask, tolerance: float = 1.5) -> Region | None:
        """The world point `where` in the picture, moved onto `mask` where it is that near; else None."""
        x, y, _ = self.camera.project(where, self.size)
        rows, columns = np.nonzero(mask)
        if not len(rows):
            return None
        off = np.hypot(rows + 0.5 - y, columns + 0.5 - x)
        nearest = off.argmin()
        return self.point_at(columns[nearest] + 0.5, rows[nearest] + 0.5) if off[nearest] <= tolerance else None


def widest_spot(table: Mask, *, least: float = 12.0) -> tuple[float, float] | None:
    """Middle (x, y) and so the place of the largest circle of the picture that shows nothing but table, in pixels.

    None where its radius is under `least`.
    """
    framed = np.pad(table, 1)
    room = require("scipy.ndimage", "sim").distance_transform_edt(framed)[1:-1, 1:-1]
    row, column = np.unravel_index(room.argmax(), room.shape)
    return (float(column) + 0.5, float(row) + 0.5) if room[row, column] >= least else None
