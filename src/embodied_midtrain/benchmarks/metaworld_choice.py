"""Meta-World's arm over several coloured solids, of which only the instruction says which one is meant.

Meta-World's own scenes allow one thing to be done, so that its tasks can be solved without reading. Here the hand is to
touch one of four solids. One that is touched first and was not meant fails the episode: trying them one after the other
does not help, and who cannot read succeeds one time in four.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.benchmarks.metaworld import CAMERA, MetaWorldSimulation
from embodied_midtrain.extras import require
from embodied_midtrain.simulation.camera import FreeCamera
from embodied_midtrain.simulation.colours import COLOURS
from embodied_midtrain.simulation.rendering import prepare_mujoco

SOLIDS = 4
HORIZON = 100
TOUCH = 0.055
"""The hand touches what it is this near to (to the middle of its top), metres."""
HOVER = 0.09
"""Height above a solid's top at which the expert crosses the table, metres."""
KINDS = {"ball": 2, "cylinder": 5, "cube": 6, "pad": 6}
"""MuJoCo's numbers for a sphere, a cylinder and a box."""
SIZES = {
    "ball": (0.036, 0.0, 0.0),
    "cylinder": (0.03, 0.042, 0.0),
    "cube": (0.032, 0.032, 0.032),
    "pad": (0.05, 0.05, 0.006),
}
"""As MuJoCo takes them: half sides, or radius and half height, metres."""
HEIGHTS = {"ball": 0.072, "cylinder": 0.084, "cube": 0.064, "pad": 0.012}
"""Metres."""


Form = Literal["ball", "cylinder", "cube", "pad"]


@dataclass(frozen=True, slots=True)
class Solid:
    """What stands on the table: in one of `simulation.colours`."""

    colour: str
    form: Form


class ChoiceSimulation(MetaWorldSimulation, ABC):
    """One solid to touch, three to leave alone: see `protocol.Simulation`."""

    def __init__(self, size: int, camera: FreeCamera = CAMERA) -> None:
        super().__init__("reach-v3", size, camera, environment=_environment())
        self.solids: Sequence[Solid] = ()
        self.tops = np.zeros((SOLIDS, 3))
        """The middle of each solid's top, world frame; the first is the one that is meant."""
        self.touched: int | None = None
        """The first solid that the hand came to."""

    @abstractmethod
    def cast(self, rng: np.random.Generator) -> Sequence[Solid]:
        """What stands on the table, the one that is meant first."""

    @abstractmethod
    def places(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Where: [SOLIDS, 2], metres."""

    def reset(self, state: int) -> None:
        super().reset(state)
        rng = np.random.default_rng([state, 11])
        self.solids, places = self.cast(rng), self.places(rng)
        self.touched = None
        model = self.env.model
        for number, (solid, (x, y)) in enumerate(zip(self.solids, places, strict=True)):
            height = HEIGHTS[solid.form]
            geom = model.geom(f"solid-{number}")
            geom.type, geom.size, geom.rgba = KINDS[solid.form], SIZES[solid.form], (*COLOURS[solid.colour], 1.0)
            # What is outside of the picture is told by it; it is computed when the model is made, for another size.
            geom.rbound = 0.1
            model.body(f"solid-{number}").pos = (x, y, height / 2)
            self.tops[number] = (x, y, height)
        self._mujoco.mj_forward(model, self.env.data)

    def step(self, action: NDArray[np.float32]) -> bool:
        super().step(action)
        if self.touched is None:
            near = np.linalg.norm(self.tops - self._hand(), axis=1)
            if near.min() <= TOUCH:
                self.touched = int(near.argmin())
        return self.touched == 0

    def expert(self) -> NDArray[np.float32]:
        """Straight across the table, then down."""
        hand, top = self._hand(), self.tops[0]
        away = float(np.linalg.norm((top - hand)[:2]))
        height = top[2] + (HOVER if away > 0.03 else 0.01)
        wanted = np.array([top[0], top[1], height]) - hand
        return np.append(np.clip(wanted * 25.0, -1, 1), -1.0).astype(np.float32)

    def start(self) -> bytes:
        told = repr((self.solids, np.round(self.tops, 6).tolist())).encode()
        return hashlib.sha256(super().start() + told).digest()[:8]

    def _hand(self) -> NDArray[np.float64]:
        hand: NDArray[np.float64] = np.asarray(self.env.tcp_center, np.float64)
        return hand


@lru_cache(maxsize=1)
def _environment() -> type:
    """Meta-World's reach environment with solids beside the arm, in place of its own puck and goal."""
    mujoco = prepare_mujoco()
    reach: Any = require("metaworld.env_dict", "sim").ENV_CLS_MAP["reach-v3"]

    class Choice(reach):
        def _initialize_simulation(self) -> tuple[Any, Any]:
            spec = mujoco.MjSpec.from_file(self.fullpath)
            for number in range(SOLIDS):
                body = spec.worldbody.add_body(name=f"solid-{number}")
                # Nothing collides with them: the hand that comes down is near, and that is all that counts.
                shape = {"type": mujoco.mjtGeom.mjGEOM_SPHERE, "size": [0.03, 0.03, 0.03]}
                body.add_geom(name=f"solid-{number}", contype=0, conaffinity=0, **shape)
            model = spec.compile()
            model.geom("objGeom").rgba[3] = model.site("goal").rgba[3] = 0.0
            return model, mujoco.MjData(model)

    return Choice
