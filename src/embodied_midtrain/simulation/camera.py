"""Cameras and their geometry: which pixel a point of the world falls on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Pinhole:
    """A camera without distortion.

    Attributes:
        focal: (x, y), in pixels.
        middle: where the viewing direction meets the picture: (x, y), in pixels.
        position: where it stands, world frame, metres. [3]
        axes: rows: its right, up and forward, as unit vectors of the world. [3, 3]
    """

    focal: tuple[float, float]
    middle: tuple[float, float]
    position: NDArray[np.float64]
    axes: NDArray[np.float64]

    def project(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """World points [..., 3] to (x, y, depth) [..., 3].

        x and y are in pixels from the top left corner (the first pixel covers 0 to 1) and may lie outside
        the picture; depth is along the viewing direction in metres, negative behind the camera.
        """
        seen = (np.asarray(points, float) - self.position) @ self.axes.T
        depth = seen[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            x = self.middle[0] + self.focal[0] * seen[..., 0] / depth
            y = self.middle[1] - self.focal[1] * seen[..., 1] / depth
        return np.stack([x, y, depth], axis=-1)

    @classmethod
    def of_fovy(
        cls, fovy: float, size: tuple[int, int], position: NDArray[np.float64], axes: NDArray[np.float64]
    ) -> Pinhole:
        """With square pixels and a vertical field of view in degrees, for pictures of `size` (height, width)."""
        height, width = size
        focal = height / 2 / math.tan(math.radians(fovy) / 2)
        return cls((focal, focal), (width / 2, height / 2), position, axes)


@dataclass(frozen=True, slots=True)
class FreeCamera:
    """A camera that looks at a point: metres and degrees, as MuJoCo's free camera takes them.

    Attributes:
        lookat: the point in the middle of the picture, world frame.
        distance: from the camera to `lookat`.
        azimuth: 0 looks along +x, 90 along +y.
        elevation: negative looks down.
        fovy: vertical field of view.
    """

    lookat: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float
    fovy: float = 45.0

    @property
    def axes(self) -> NDArray[np.float64]:
        """Rows: the camera's right, up and forward, as unit vectors of the world. [3, 3]"""
        az, el = math.radians(self.azimuth), math.radians(self.elevation)
        forward = (math.cos(el) * math.cos(az), math.cos(el) * math.sin(az), math.sin(el))
        up = (-math.sin(el) * math.cos(az), -math.sin(el) * math.sin(az), math.cos(el))
        return np.array([(math.sin(az), -math.cos(az), 0.0), up, forward])

    @property
    def position(self) -> NDArray[np.float64]:
        """Where the camera stands, world frame. [3]"""
        position: NDArray[np.float64] = np.asarray(self.lookat) - self.distance * self.axes[2]
        return position

    def project(self, points: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float64]:
        """World points [..., 3] to (x, y, depth) [..., 3], in a picture of `size`: see `Pinhole.project`."""
        return self.pinhole(size).project(points)

    def pinhole(self, size: tuple[int, int]) -> Pinhole:
        """The same camera for pictures of `size` (height, width)."""
        return Pinhole.of_fovy(self.fovy, size, self.position, self.axes)

    def on_plane(self, pixels: NDArray[Any], size: tuple[int, int], z: float) -> NDArray[np.float64]:
        """Where the sight through pixels (x, y) [..., 2] meets the level plane at height `z`: world points [..., 3].

        The inverse of `project` for points at that height; meaningless for sights that do not go down to it.
        """
        seen = self.pinhole(size)
        x, y = np.moveaxis((np.asarray(pixels, float) - seen.middle) / seen.focal, -1, 0)
        sight = np.stack([x, -y, np.ones_like(x)], -1) @ self.axes
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = (z - self.position[2]) / sight[..., 2:]
        met: NDArray[np.float64] = self.position + reach * sight
        return met
