"""Where cameras stand and what they see, from a file of the user's.

cameras:
  agent:                      the name that the data have for the camera, or "agent"
    size: [480, 640]          height and width of the pictures that fx ... cy are meant for; others are scaled
    fx: 607.1
    fy: 607.0
    cx: 320.5
    cy: 241.2
    position: [1.02, 0.1, 0.6]            of the camera in the frame of the states, metres
    rotation: [[0, 0, -1], [1, 0, 0], [0, -1, 0]]   from the camera's frame to that of the states
    convention: opencv        x right, y down, looking along z; or opengl: x right, y up, looking along -z

`fovy` (degrees, vertical) may stand in place of fx, fy, cx and cy. Where cameras were moved between episodes,
`episodes` has the same for each of them, by id.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from embodied_midtrain.config import ConfigError, load_yaml, structure
from embodied_midtrain.simulation.camera import Pinhole

Row = tuple[float, float, float]


@dataclass(frozen=True)
class CameraEntry:
    """One camera that stands still."""

    position: Row
    """In the frame of the states, metres."""
    rotation: tuple[Row, Row, Row]
    """Matrix from the camera's frame to that of the states."""
    convention: Literal["opencv", "opengl"] = "opencv"
    """Of the camera's frame."""
    size: tuple[int, int] | None = None
    """Height and width of the pictures that fx, fy, cx and cy are meant for; None: those of the data."""
    fovy: float | None = None
    """Vertical field of view, degrees."""
    fx: float | None = None
    """Focal length, pixels."""
    fy: float | None = None
    """Focal length, pixels."""
    cx: float | None = None
    """Where the viewing direction meets the picture, pixels from the left."""
    cy: float | None = None
    """And from the top."""

    def pinhole(self, size: tuple[int, int]) -> Pinhole:
        """For pictures of `size` (height, width).

        Raises:
            ConfigError: where numbers are missing or make no camera.
        """
        turn = np.array(self.rotation, float)
        if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) or np.linalg.det(turn) < 0:
            raise ConfigError("the calibration's rotation is no rotation: its columns must be of length 1 and upright")
        right, second, third = turn.T
        axes = np.stack([right, -second, third] if self.convention == "opencv" else [right, second, -third])
        position = np.array(self.position, float)
        if self.fovy is not None:
            if not 0 < self.fovy < 180:
                raise ConfigError(f"the calibration's fovy {self.fovy}: wanted degrees between 0 and 180")
            return Pinhole.of_fovy(self.fovy, size, position, axes)
        if self.fx is None or self.fy is None or self.cx is None or self.cy is None:
            raise ConfigError("the calibration of a camera needs fovy, or all of fx, fy, cx and cy")
        height, width = self.size or size
        if min(self.fx, self.fy, height, width) <= 0:
            raise ConfigError("the calibration's fx, fy and size must be above 0")
        tall, wide = size[0] / height, size[1] / width
        return Pinhole((self.fx * wide, self.fy * tall), (self.cx * wide, self.cy * tall), position, axes)


@dataclass(frozen=True)
class Calibration:
    """All cameras of a data set."""

    cameras: dict[str, CameraEntry]
    """By the name that the data have for them."""
    episodes: dict[str, dict[str, CameraEntry]] = field(default_factory=dict)
    """Of single episodes, by their id, in place of those: where cameras were moved between them."""


def read_calibration(path: Path) -> Calibration:
    """From YAML or JSON.

    Raises:
        ConfigError: where it cannot be understood.
    """
    return structure(Calibration, load_yaml(path), path.name)
