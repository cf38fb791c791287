"""What is true of a running MuJoCo scene: what its things are called, where they are, and which pixel shows which.

A simulation that can say so has a method `truth()` (`benchmarks.protocol.Truthful`); the answer is a live view, good
until the next reset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.extras import require
from embodied_midtrain.simulation.camera import FreeCamera, Pinhole
from embodied_midtrain.simulation.rendering import SceneRenderer
from embodied_midtrain.simulation.shapes import Points, surface_points

AGENT, WRIST = "agent", "wrist"
"""What cameras are called: the one that policies see, and the one on the hand."""
NOTHING, ARM, FINGERS, FIRST = 0, 1, 2, 3
"""What the pixels of `Look.seen` mean; `FIRST` + n is thing n."""
MOST = 250
"""Things that a scene may have: pixels are bytes."""


@dataclass(frozen=True, slots=True)
class Prop:
    """One thing of a scene that can be asked about.

    Attributes:
        name: how it is called, without article; two of one name cannot be told apart in words.
        geoms, sites: MuJoCo's numbers of what is drawn of it.
        bodies: MuJoCo's numbers of what can be touched of it.
        grasped: whether a gripper can take hold of it; None where people would not agree.
    """

    name: str
    geoms: tuple[int, ...]
    sites: tuple[int, ...] = ()
    bodies: tuple[int, ...] = ()
    grasped: bool | None = None


@dataclass(frozen=True, slots=True)
class Hand:
    """The gripper now.

    Attributes:
        place: between the fingertips, world frame, metres. [3]
        opening: 0 closed to 1 open.
        touched: the number of a thing that a finger touches, or -1.
        held: the number of the thing that two fingers touch, or -1.
    """

    place: NDArray[np.float64]
    opening: float
    touched: int
    held: int


@dataclass(frozen=True, slots=True)
class Sight:
    """What one camera shows.

    Attributes:
        frame: RGB. [height, width, 3]
        camera: its geometry.
        seen: which thing each pixel shows, as `NOTHING`, `ARM`, ... [height, width]
        outlines: pixels within the convex outline of each thing, hidden and outside ones included; 0 where a part of
            it is behind the camera. [things]
    """

    frame: NDArray[np.uint8]
    camera: Pinhole
    seen: NDArray[np.uint8]
    outlines: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Look:
    """What the cameras show now, and where things are.

    Attributes:
        sights: by camera.
        low, high: corners of each thing's box along the world's axes, metres. [things, 3]
        fingers: points of each finger's surface, world frame, metres. [fingers, `FINGER_POINTS`, 3]
    """

    sights: dict[str, Sight]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    fingers: NDArray[np.float64]


FINGER_POINTS = 64


@dataclass(frozen=True, slots=True)
class Gripper:
    """Of which parts a gripper consists, in MuJoCo's numbers.

    Attributes:
        fingers: what is drawn of each finger.
        pads: bodies of each finger, for contacts; how far the last ones are apart tells the opening.
        tips: sites; the gripper is in the middle between them.
        arm: everything else that is drawn of the robot.
    """

    fingers: tuple[tuple[int, ...], ...]
    pads: tuple[tuple[int, ...], ...]
    tips: tuple[int, ...]
    arm: tuple[int, ...]


class Truth:
    """A live view of a scene."""

    def __init__(
        self,
        model: Any,
        data: Any,
        renderer: SceneRenderer,
        views: Mapping[str, FreeCamera | str],
        props: Sequence[Prop],
        gripper: Gripper,
        *,
        forward: tuple[float, float, float],
        opening: float,
    ) -> None:
        """`forward` is the way that the robot faces; `opening` the distance of open fingertips, metres.

        Raises:
            ValueError: where there are more than `MOST` things.
        """
        if len(props) > MOST:
            raise ValueError(f"{len(props)} things: at most {MOST} can be told apart in a picture")
        self.props, self.views, self.forward = tuple(props), dict(views), np.asarray(forward, float)
        self._model, self._data, self._renderer, self._gripper, self._opening = model, data, renderer, gripper, opening
        # Ids of geoms from 0 on, of sites from -2 down: one table over both.
        self._shown = np.zeros(model.ngeom + model.nsite + 2, np.uint8)
        self._shown[list(gripper.arm)] = ARM
        # Meta-World draws a ball on each fingertip.
        self._shown[[*(geom for finger in gripper.fingers for geom in finger), *(-2 - tip for tip in gripper.tips)]] = (
            FINGERS
        )
        self._prop_of = np.full(model.nbody, -1)
        for number, prop in enumerate(self.props):
            self._shown[[*prop.geoms, *(-2 - site for site in prop.sites)]] = FIRST + number
            self._prop_of[list(prop.bodies)] = number

    def hand(self) -> Hand:
        """The gripper now."""
        tips = self._data.site_xpos[list(self._gripper.tips)]
        touching = [self._touched_by(pads) for pads in self._gripper.pads]
        held = sorted(set.intersection(*touching))
        touched = held or sorted(set.union(*touching))
        return Hand(tips.mean(0), self._opening_now(), touched[0] if touched else -1, held[0] if held else -1)

    def _opening_now(self) -> float:
        """Distance of the fingers' middles, against that of open ones."""
        middles = [self._data.xpos[pads[-1]] for pads in self._gripper.pads]
        return float(np.clip(np.linalg.norm(middles[0] - middles[1]) / self._opening, 0, 1))

    def _touched_by(self, pads: Sequence[int]) -> set[int]:
        contacts = self._data.contact
        bodies = self._model.geom_bodyid[contacts.geom[: self._data.ncon]]
        ours = np.isin(bodies, pads)
        others = self._prop_of[bodies[:, ::-1][ours]]
        return {int(number) for number in others if number >= 0}

    def points(self, prop: Prop) -> Points:
        """Of its surface, world frame. [n, 3]"""
        parts = [surface_points(self._model, self._data, prop.geoms)] if prop.geoms else []
        parts += [self._data.site_xpos[site] + _BALL * self._model.site_size[site, 0] for site in prop.sites]
        return np.concatenate(parts)

    def look(self, drawn: Mapping[str, NDArray[np.uint8]] = MappingProxyType({})) -> Look:
        """Draw what the cameras show now; `drawn` are frames that are there already, by camera."""
        points = [self.points(prop) for prop in self.props]
        fingers = [_thinned(surface_points(self._model, self._data, geoms)) for geoms in self._gripper.fingers]
        return Look(
            {name: self._sight(camera, points, drawn.get(name)) for name, camera in self.views.items()},
            np.array([p.min(0) for p in points]).reshape(-1, 3),
            np.array([p.max(0) for p in points]).reshape(-1, 3),
            np.stack(fingers),
        )

    def _sight(self, camera: FreeCamera | str, points: Sequence[Points], frame: NDArray[np.uint8] | None) -> Sight:
        pinhole = self._renderer.pinhole(self._data, camera)
        outlines = np.array([_outline(pinhole.project(p)) for p in points], np.float32)
        seen = self._shown[self._renderer.segmentation(self._data, camera)]
        frame = self._renderer.render(self._data, camera) if frame is None else frame
        return Sight(frame, pinhole, seen, outlines)


def _thinned(points: Points) -> Points:
    """`FINGER_POINTS` of them that still span their outline: the extremes along as many directions."""
    directions = np.random.default_rng(0).standard_normal((3, FINGER_POINTS))
    return points[(points @ directions).argmax(0)]


def _outline(pixels: Points) -> float:
    """Area within the outline of projected points [n, 3]."""
    if not len(pixels) or pixels[:, 2].min() <= 0:
        return 0.0
    return float(require("scipy.spatial", "sim").ConvexHull(pixels[:, :2], qhull_options="QJ").volume)


def _sphere() -> Points:
    turn, height = np.meshgrid(np.linspace(0, 2 * np.pi, 16, endpoint=False), np.linspace(-1, 1, 9))
    around = np.sqrt(1 - height**2)
    return np.stack([around * np.cos(turn), around * np.sin(turn), height], -1).reshape(-1, 3)


_BALL = _sphere()
