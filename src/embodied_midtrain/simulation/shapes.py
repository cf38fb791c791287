"""The surfaces of a MuJoCo scene's geoms, as points."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.extras import require

Points = NDArray[np.float64]
"""[n, 3]"""


def surface_points(model: Any, data: Any, geoms: Iterable[int], *, most: int = 1500) -> Points:
    """Points of the surfaces of `geoms` in the state `data`, world frame: mesh vertices, thinned evenly, or a raster.

    Extremes (lowest, highest, ...) are kept, so that bounding boxes are exact.
    """
    parts = [_geom_points(model, geom) @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom] for geom in geoms]
    points = np.concatenate(parts)
    kept = np.arange(0, len(points), max(1, len(points) // most))
    return points[np.union1d(kept, np.concatenate([points.argmin(0), points.argmax(0)]))]


def _geom_points(model: Any, geom: int) -> Points:
    """Points of the surface of a geom in its own frame. [n, 3]"""
    mujoco = require("mujoco", "sim")
    kinds, kind, size = mujoco.mjtGeom, model.geom_type[geom], model.geom_size[geom]
    if kind == kinds.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        start, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        return np.asarray(model.mesh_vert[start : start + count], float)
    if kind == kinds.mjGEOM_BOX:
        side = np.linspace(-1, 1, 5)
        return np.stack(np.meshgrid(side, side, side), -1).reshape(-1, 3) * size
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.column_stack([np.cos(turn), np.sin(turn)])
    if kind == kinds.mjGEOM_CYLINDER:
        rings = [np.column_stack([circle * size[0], np.full(24, z)]) for z in (-size[1], 0, size[1])]
        return np.concatenate(rings)
    latitudes = np.linspace(-np.pi / 2, np.pi / 2, 13)
    ball = np.concatenate([np.column_stack([circle * np.cos(a), np.full(24, np.sin(a))]) for a in latitudes])
    if kind == kinds.mjGEOM_CAPSULE:
        ends = ball * size[0]
        return ends + np.where(ends[:, 2:] >= 0, 1, -1) * np.array([0, 0, size[1]])
    if kind == kinds.mjGEOM_ELLIPSOID:
        return ball * size
    return ball * size[0]
