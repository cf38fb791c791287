"""What LIBERO's scripted expert knows of a world: where the hand is, and every solid part of every thing.

LIBERO's things are made of boxes (and a few meshes, taken by the boxes around them). All in metres, in the world.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.benchmarks.libero_world import World
from embodied_midtrain.extras import require

Vector = NDArray[np.float64]
"""[3]"""
ROBOT = ("robot0_", "gripper0_", "mount0_")
_PLANE = 0
"""MuJoCo's number of the type."""


@dataclass(frozen=True)
class Pose:
    """A place [3] and an orientation [3, 3]."""

    place: Vector
    turn: NDArray[np.float64]


@dataclass(frozen=True)
class Boxes:
    """Solid boxes: centres [n, 3], orientations [n, 3, 3], half sizes [n, 3]."""

    centres: NDArray[np.float64]
    turns: NDArray[np.float64]
    halves: NDArray[np.float64]

    def points(self, per_side: int = 2) -> NDArray[np.float64]:
        """A grid through each box, its corners with 2: [n * per_side ** 3, 3]."""
        steps = np.linspace(-1, 1, per_side)
        grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
        local = grid[None] * self.halves[:, None]
        return (np.einsum("nij,npj->npi", self.turns, local) + self.centres[:, None]).reshape(-1, 3)

    def contain(self, points: NDArray[np.float64], margin: float = 0.0) -> NDArray[np.bool_]:
        """Which of the points [m, 3] lie in any box, or closer than `margin` to it: [m]."""
        if not len(self.centres):
            return np.zeros(len(points), bool)
        local = np.einsum("nji,nmj->nmi", self.turns, points[None] - self.centres[:, None])
        inside: NDArray[np.bool_] = (np.abs(local) <= self.halves[:, None] + margin).all(-1).any(0)
        return inside

    def near(self, place: Vector, reach: float) -> Boxes:
        """Those of which a part may lie within `reach` of a place."""
        far = np.linalg.norm(self.centres - place, axis=1) - np.linalg.norm(self.halves, axis=1)
        return Boxes(self.centres[far < reach], self.turns[far < reach], self.halves[far < reach])

    @property
    def top(self) -> float:
        return float(self.points()[:, 2].max())

    @property
    def bottom(self) -> float:
        return float(self.points()[:, 2].min())

    @property
    def middle(self) -> Vector:
        """Of what they span along each axis."""
        corners = self.points()
        return (corners.min(0) + corners.max(0)) / 2


class Scene:
    """A live view of a world: each call answers for the moment."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.env = world.env

    @cached_property
    def _geoms(self) -> dict[str, list[int]]:
        """Solid geoms by the name of the top body that carries them, planes and the robot left out."""
        model = self._world.model
        found: dict[str, list[int]] = {}
        for geom in range(model.ngeom):
            if not (model.geom_contype[geom] or model.geom_conaffinity[geom]) or model.geom_type[geom] == _PLANE:
                continue
            name = model.body(int(model.body_rootid[model.geom_bodyid[geom]])).name
            if not name.startswith(ROBOT):
                found.setdefault(name, []).append(geom)
        return found

    def _boxes(self, geoms: Iterable[int]) -> Boxes:
        model, data, chosen = self._world.model, self._world.data, np.array(list(geoms), int)
        turns = data.geom_xmat[chosen].reshape(-1, 3, 3)
        around = model.geom_aabb[chosen]
        centres = data.geom_xpos[chosen] + np.einsum("nij,nj->ni", turns, around[:, :3])
        return Boxes(centres, turns.copy(), around[:, 3:].copy())

    def _root(self, name: str) -> str:
        """The top body of an object or fixture."""
        return str(self.env.get_object(name).root_body)

    def boxes(self, name: str) -> Boxes:
        """Of an object or a fixture."""
        return self._boxes(self._geoms[self._root(name)])

    def part(self, body: str) -> Boxes:
        """Of one body alone, such as a drawer."""
        model = self._world.model
        number = model.body(body).id
        return self._boxes(g for g in range(model.ngeom) if model.geom_bodyid[g] == number and model.geom_contype[g])

    def others(self, *names: str) -> Boxes:
        """Of everything but these, and the robot."""
        without = {self._root(name) for name in names}
        return self._boxes(g for root, geoms in self._geoms.items() if root not in without for g in geoms)

    def hand(self) -> Pose:
        """Between the fingertips; its z points out of the hand."""
        site = self._world.data.site(self._world.robot.gripper.important_sites["grip_site"])
        return Pose(site.xpos.copy(), site.xmat.reshape(3, 3).copy())

    @cached_property
    def fingers(self) -> Vector:
        """Direction in which the fingers open, in the hand's frame."""
        left, right = (self._world.data.body(f"gripper0_{side}finger").xpos for side in ("left", "right"))
        along = self.hand().turn.T @ (left - right)
        return along / np.linalg.norm(along)

    def pose(self, name: str) -> Pose:
        """Of an object, a fixture or a site, as the goals see it."""
        data = self._world.data
        if name in self.env.object_sites_dict:
            site = data.site(name)
            return Pose(site.xpos.copy(), site.xmat.reshape(3, 3).copy())
        body = self.env.obj_body_id[name]
        return Pose(data.xpos[body].copy(), data.xmat[body].reshape(3, 3).copy())

    def site(self, name: str) -> Any:
        """LIBERO's site of that name, or None where it is no site."""
        return self.env.object_sites_dict.get(name)

    def parent(self, name: str) -> str | None:
        """The thing that a site is part of; None for a place on the table."""
        return getattr(self.site(name), "parent_name", None)

    def joint(self, name: str) -> tuple[float, Vector, Vector, str]:
        """A hinge or slide: where it stands, its axis and anchor in the world, and the body that it moves."""
        model, data = self._world.model, self._world.data
        joint = model.joint(name)
        return (
            float(data.qpos[joint.qposadr[0]]),
            data.xaxis[joint.id].copy(),
            data.xanchor[joint.id].copy(),
            model.body(int(joint.bodyid[0])).name,
        )

    def drawer(self, name: str) -> tuple[str, float] | None:
        """The joint of a site that is a drawer, and the sign of its way out; None for anything else."""
        joints = getattr(self.site(name), "joints", None)
        if not joints or self.parent(name) is None:
            return None
        ways = self.env.get_object(self.parent(name)).object_properties["articulation"]["default_open_ranges"]
        return joints[0], float(np.sign(sum(ways)))

    def is_open(self, name: str) -> bool:
        return bool(self.env.object_states_dict[name].is_open())

    def handle(self, name: str) -> tuple[Vector, Vector]:
        """Which way a drawer opens, and the middle of its handle: the part that stands out furthest that way."""
        joint, sign = self.drawer(name) or ("", 0.0)
        _, axis, _, body = self.joint(joint)
        outward = axis * sign
        parts = self.part(body)
        return outward, parts.centres[int((parts.centres @ outward).argmax())]

    @property
    def goals(self) -> list[list[str]]:
        """LIBERO's: [predicate, thing] or [predicate, thing, place]."""
        return [list(goal) for goal in self.env.parsed_problem["goal_state"]]

    def holds(self, goal: list[str]) -> bool:
        return bool(self.env._eval_predicate(goal))

    def surface(self, spot: Vector, reach: float, boxes: Boxes) -> float | None:
        """Height of the highest of the boxes below or above `spot`, within `reach` of it; None over nothing."""
        round_ = np.linspace(0, 2 * np.pi, 8, endpoint=False)
        flat = np.concatenate(
            [[[0, 0]], *(r * np.stack([np.cos(round_), np.sin(round_)], 1) for r in (reach / 2, reach))]
        )
        heights = np.arange(boxes.top + 0.002, boxes.bottom - 0.002, -0.002)
        points = np.concatenate(
            [np.repeat(spot[None, :2] + flat, len(heights), 0), np.tile(heights, len(flat))[:, None]], axis=1
        )
        inside = boxes.contain(points)
        return float(points[inside, 2].max()) if inside.any() else None


def axis_angle(turn: NDArray[np.float64]) -> Vector:
    """Orientation [3, 3] -> axis times angle [3]."""
    found: Vector = require("scipy.spatial.transform", "data").Rotation.from_matrix(turn).as_rotvec()
    return found


def turn_about(axis: Vector, angle: float) -> NDArray[np.float64]:
    """The orientation [3, 3] after a turn by `angle` about `axis`."""
    found: NDArray[np.float64] = (
        require("scipy.spatial.transform", "data").Rotation.from_rotvec(axis * angle).as_matrix()
    )
    return found
