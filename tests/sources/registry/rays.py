"""A second opinion on a scene: what sight rays hit, from MuJoCo's ray caster and a pinhole camera written anew."""

from __future__ import annotations

from typing import Any

import numpy as np

from embodied_midtrain.simulation.camera import FreeCamera


class Rays:
    """Casts rays through pixels of a square picture into a model's drawn geoms.

    Shares nothing with the renderer, the segmentation or `FreeCamera`'s own projection.
    """

    def __init__(self, model: Any, data: Any, camera: FreeCamera, side: int) -> None:
        import mujoco

        self._mujoco, self.model, self.data, self.side = mujoco, model, data, side
        turn, tilt = np.deg2rad([camera.azimuth, camera.elevation])
        self.forward = np.array([np.cos(turn) * np.cos(tilt), np.sin(turn) * np.cos(tilt), np.sin(tilt)])
        self.right = np.cross(self.forward, [0.0, 0.0, 1.0])
        self.right /= np.linalg.norm(self.right)
        self.up = np.cross(self.right, self.forward)
        self.eye = np.array(camera.lookat) - camera.distance * self.forward
        self.slope = 2 * np.tan(np.deg2rad(camera.fovy) / 2) / side
        # Groups that MuJoCo draws: 0, 1 and 2.
        self.groups = np.array([1, 1, 1, 0, 0, 0], np.uint8)

    def hit(self, x: float, y: float) -> tuple[int, np.ndarray]:
        """The geom at pixel (x, y), -1 for none, and where it is met."""
        sight = self.forward + ((x - self.side / 2) * self.right - (y - self.side / 2) * self.up) * self.slope
        sight /= np.linalg.norm(sight)
        geom = np.full(1, -1, np.int32)
        far = self._mujoco.mj_ray(self.model, self.data, self.eye, sight, self.groups, 1, -1, geom)
        return int(geom[0]), self.eye + max(far, 0.0) * sight

    def hits(self, step: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A raster of the picture: pixels [n, 2], geoms [n], places [n, 3]."""
        pixels = [(x + 0.5, y + 0.5) for y in range(0, self.side, step) for x in range(0, self.side, step)]
        met = [self.hit(*pixel) for pixel in pixels]
        return np.array(pixels), np.array([geom for geom, _ in met]), np.array([place for _, place in met])
