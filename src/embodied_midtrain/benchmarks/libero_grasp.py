"""Where a gripper that points down can take hold of a thing: across its middle, or over a rim.

A grip is tried out on the boxes of everything: fingers and palm must fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

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
RIM = 0.02
"""Thickest wall that counts as a rim."""


@dataclass(frozen=True)
class Grip:
    """Where the pads' middle goes, along which horizontal direction the fingers close, and what speaks against it."""

    place: Vector
    axis: Vector
    cost: float


def best_grip(thing: Boxes, others: Boxes, fingers: Vector, failed: Sequence[Grip] = ()) -> Grip | None:
    """The cheapest grip of a thing among others; one like those that have failed costs more.

    Args:
        fingers: horizontal direction in which the hand's fingers open now.
    """
    grips = [*_across(thing), *_over_rim(thing)]
    everything = Boxes(*(np.concatenate(pair) for pair in zip(_parts(thing), _parts(others), strict=True)))
    weighed = [
        Grip(
            g.place,
            g.axis,
            g.cost
            + 0.3 * _turning(g.axis, fingers)
            + 4.0 * _blocked(g, everything)
            + 0.3 * sum(map(partial(_alike, g), failed)),
        )
        for g in grips
    ]
    return min(weighed, key=lambda grip: grip.cost, default=None)


def _alike(one: Grip, other: Grip) -> bool:
    return bool(abs(one.axis @ other.axis) > 0.9 and np.linalg.norm(one.place - other.place) < 0.02)


def _parts(boxes: Boxes) -> tuple[NDArray[np.float64], ...]:
    return boxes.centres, boxes.turns, boxes.halves


def _turning(axis: Vector, fingers: Vector) -> float:
    """How far the hand has to turn, as a share of a right angle."""
    return float(np.arccos(np.clip(abs(axis @ fingers), 0, 1)) / (np.pi / 2))


def _across(thing: Boxes) -> list[Grip]:
    top, bottom = thing.top, thing.bottom
    height = max(top - DEPTH, bottom + LOWEST)
    points = thing.points(7)
    slice_ = points[np.abs(points[:, 2] - height) < 0.012]
    if len(slice_) < 8:
        slice_ = points
    grips = []
    for angle in np.arange(0, np.pi, np.pi / 24):
        axis = np.array([np.cos(angle), np.sin(angle), 0.0])
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
        grips.append(Grip(np.array([*place, height]), axis, 0.3))
    return grips


def _hand() -> NDArray[np.float64]:
    """Points of open fingers and palm: along the fingers' axis, sideways, up from the pads: [n, 3]."""
    fingers = [
        (s * a, b, c) for s in (-1, 1) for a in (0.043, 0.055) for b in (-0.01, 0, 0.01) for c in _steps(-0.012, 0.04)
    ]
    palm = [(a, b, c) for a in _steps(-0.1, 0.1) for b in (-0.03, 0, 0.03) for c in (0.045, 0.07, 0.1)]
    return np.array([*fingers, *palm])


def _steps(low: float, high: float) -> NDArray[np.float64]:
    return np.linspace(low, high, 7)


_HAND = _hand()


def _blocked(grip: Grip, boxes: Boxes) -> float:
    """Share of the hand's points that are inside something, times ten, at most 1."""
    side = np.array([-grip.axis[1], grip.axis[0], 0.0])
    frame = np.stack([grip.axis, side, np.array([0.0, 0.0, 1.0])])
    return min(1.0, 10 * float(boxes.contain(_HAND @ frame + grip.place, margin=0.002).mean()))
