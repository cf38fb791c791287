"""Where a gripper that points down can take hold of a thing: across its middle, or over a rim.

A grip is tried out on the boxes of everything: fingers and palm must fit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.benchmarks.libero_scene import Boxes, Vector

WIDEST = 0.072
"""Of what goes between the fingers, which open to 80 mm."""
DEPTH = 0.03
"""How far below a thing's top the fingertips' pads go; the palm begins 40 mm above them."""
RIM_DEPTH = 0.018
LOWEST = 0.016
"""Of the pads above what a thing stands on: the fingertips reach below them."""
HAND = 0.4
"""How far from a thing's middle the hand that holds it may reach."""
RIM = 0.02
"""Thickest wall that counts as a rim."""


@dataclass(frozen=True)
class Grip:
    """Where the pads' middle goes, along which horizontal direction the fingers close, and what speaks against it."""

    place: Vector
    axis: Vector
    cost: float


def best_grip(thing: Boxes, others: Boxes, fingers: Vector, shift: Vector, failed: Sequence[Grip] = ()) -> Grip | None:
    """The cheapest grip of a thing among others; one like those that have failed costs more.

    Args:
        fingers: horizontal direction in which the hand's fingers open now.
        shift: how far the thing is to be carried: the hand must fit there too.
    """
    around, there = others.near(thing.middle, HAND), others.near(thing.middle + shift, HAND)
    here = Boxes(*(np.concatenate(pair) for pair in zip(_parts(thing), _parts(around), strict=True)))

    def cost(grip: Grip) -> float:
        crowded = _blocked(grip, here) + _blocked(replace(grip, place=grip.place + shift), there)
        return (
            grip.cost + 0.3 * _turning(grip.axis, fingers) + 4.0 * crowded + 0.3 * sum(_alike(grip, f) for f in failed)
        )

    weighed = [replace(grip, cost=cost(grip)) for grip in (*_across(thing), *_over_rim(thing))]
    return min(weighed, key=lambda grip: grip.cost, default=None)


def _parts(boxes: Boxes) -> tuple[NDArray[np.float64], ...]:
    return boxes.centres, boxes.turns, boxes.halves


def _alike(one: Grip, other: Grip) -> bool:
    return bool(abs(one.axis @ other.axis) > 0.9 and np.linalg.norm(one.place - other.place) < 0.02)


def _turning(axis: Vector, fingers: Vector) -> float:
    """How far the hand has to turn, as a share of a right angle."""
    return float(np.arccos(np.clip(abs(axis @ fingers), 0, 1)) / (np.pi / 2))


def _directions() -> Iterator[Vector]:
    """Horizontal ones, half a turn in steps of 7.5 degrees."""
    for angle in np.arange(0, np.pi, np.pi / 24):
        yield np.array([np.cos(angle), np.sin(angle), 0.0])


def narrowest(points: NDArray[np.float64]) -> tuple[Vector, float]:
    """The horizontal direction along which points [n, 3] spread least, and by how much."""
    widths = [(float(np.ptp(points @ axis)), axis) for axis in _directions()]
    width, axis = min(widths, key=lambda row: row[0])
    return axis, width


def _across(thing: Boxes) -> list[Grip]:
    top, bottom = thing.top, thing.bottom
    height = max(top - DEPTH, bottom + LOWEST)
    points = thing.points(7)
    slice_ = points[np.abs(points[:, 2] - height) < 0.012]
    if len(slice_) < 8:
        slice_ = points
    grips = []
    for axis in _directions():
        side = np.array([-axis[1], axis[0], 0.0])
        low, high = (slice_ @ axis).min(), (slice_ @ axis).max()
        if high - low > WIDEST:
            continue
        along = slice_ @ side
        place = axis * (low + high) / 2 + side * (along.min() + along.max()) / 2
        grips.append(Grip(np.array([place[0], place[1], height]), axis, 6.0 * (high - low)))
    return grips


def _over_rim(thing: Boxes) -> list[Grip]:
    top, bottom = thing.top, thing.bottom
    points = thing.points(7)
    upper = points[points[:, 2] > top - RIM_DEPTH]
    middle = (upper.min(0) + upper.max(0))[:2] / 2
    apart = upper[:, :2] - middle
    radius, angles = np.linalg.norm(apart, axis=1), np.arctan2(apart[:, 1], apart[:, 0])
    grips = []
    for angle in np.arange(-np.pi, np.pi, np.pi / 12):
        near = np.abs((angles - angle + np.pi) % (2 * np.pi) - np.pi) < 0.15
        if not near.any() or radius[near].max() - radius[near].min() > RIM or radius[near].min() < 0.02:
            continue
        axis = np.array([np.cos(angle), np.sin(angle), 0.0])
        place = middle + axis[:2] * (radius[near].min() + radius[near].max()) / 2
        height = max(top - RIM_DEPTH, bottom + LOWEST)
        inside = np.array([[*(place - 0.035 * axis[:2]), height]])
        if not thing.contain(inside).any():
            grips.append(Grip(np.array([*place, height]), axis, 0.3))
    return grips


def _grid(along: Iterable[float], aside: Iterable[float], up: Iterable[float]) -> NDArray[np.float64]:
    return np.array(list(itertools.product(along, aside, up)))


_FINGERS = _grid((-0.055, -0.043, 0.043, 0.055), (-0.01, 0, 0.01), np.linspace(-0.012, 0.04, 7))
"""Points of the open fingers: along their axis, aside, up from the pads."""
_PALM = np.concatenate(
    [
        _grid(np.linspace(-0.1, 0.1, 9), np.linspace(-0.03, 0.03, 4), np.linspace(0.05, 0.12, 4)),
        _grid(np.linspace(-0.05, 0.05, 4), np.linspace(-0.05, 0.05, 4), np.linspace(0.14, 0.24, 4)),
    ]
)
"""Points of what is above them."""
_SPARE = 0.012
"""Room that the palm keeps: walls of LIBERO's furniture are thinner than the points are apart."""


def _blocked(grip: Grip, boxes: Boxes) -> float:
    """Share of the hand's points that are inside something, times ten."""
    side = np.array([-grip.axis[1], grip.axis[0], 0.0])
    frame = np.stack([grip.axis, side, np.array([0.0, 0.0, 1.0])])
    hit = [boxes.contain(part @ frame + grip.place, spare) for part, spare in ((_FINGERS, 0.002), (_PALM, _SPARE))]
    return 10 * max(float(part.mean()) for part in hit)
