"""Camera Prediction: how the camera of a picture stands and sees, and how it moved from one picture to the next.

Angles and lengths are asked for in steps; nearer than `MARGIN` of a step to where rounding changes they are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from embodied_midtrain.coupled.moment import Asked
from embodied_midtrain.simulation.camera import FreeCamera

KINDS = ("field-of-view", "tilt", "height", "change", "turn", "higher", "steeper", "nearer-camera")
FIRST, SECOND = "first", "second"
FIELDS = (30, 45, 60, 75)
"""Fields of view about which those of the cameras lie, degrees."""
SPREAD = 4.0
"""They lie within this of one of `FIELDS`, degrees."""
TILT, TURN, HEIGHT = 15, 15, 20
"""Steps: degrees, degrees, centimetres."""
MARGIN = 0.15
LEVELS = (-78.0, -18.0)
"""Elevations that cameras have."""
AROUND, LEVEL = (15.0, 75.0), (12.0, 30.0)
"""Least and most change of azimuth and of elevation, degrees."""
CLOSER = (0.5, 0.7)
"""What part of the distance remains."""
CHANGES = ("to its left", "to its right", "up", "down", "closer", "farther away", "zoomed in", "zoomed out")
CLEAR = (1.2, 8.0, 1.25)
"""Least ratio of heights, difference of tilts (degrees) and ratio of distances for one to be called the greater."""
SEVERAL = 0.3
"""Share of the pairs in which several things change at once."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two cameras that look at the same place.

    Attributes:
        change: one of `CHANGES` where the second differs from the first in this alone, else "".
    """

    first: FreeCamera
    second: FreeCamera
    change: str


def draw_pair(rng: np.random.Generator) -> Pair:
    """Two cameras over a table whose top is at height 0."""
    field = float(rng.choice(FIELDS) + rng.uniform(-SPREAD, SPREAD))
    x, y = map(float, rng.uniform(-0.05, 0.05, 2))
    lookat = (x, y, 0.03)
    # The wider the field, the nearer: how large things look does not give it away.
    distance = float(rng.uniform(0.3, 0.42) / np.tan(np.deg2rad(field) / 2))
    first = FreeCamera(lookat, distance, float(rng.uniform(0, 360)), float(rng.uniform(*LEVELS)), field)
    if rng.uniform() < SEVERAL:
        second = first
        for group in (CHANGES[:2], CHANGES[2:4], CHANGES[4:6]):
            second = changed(second, str(rng.choice(group)), rng) or second
        return Pair(first, second, "")
    change = str(rng.choice([c for c in CHANGES if changed(first, c, np.random.default_rng(0)) is not None]))
    second_or_none = changed(first, change, rng)
    assert second_or_none is not None
    return Pair(first, second_or_none, change)


def changed(camera: FreeCamera, change: str, rng: np.random.Generator) -> FreeCamera | None:
    """The camera after one of `CHANGES`; None where it would leave the cameras' range."""
    turn, level, part = rng.uniform(*AROUND), rng.uniform(*LEVEL), rng.uniform(*CLOSER)
    fields = [f for f in FIELDS if (f < camera.fovy - 8 if change == "zoomed in" else f > camera.fovy + 8)]
    match change:
        case "to its right":
            return replace(camera, azimuth=float(camera.azimuth + turn) % 360)
        case "to its left":
            return replace(camera, azimuth=float(camera.azimuth - turn) % 360)
        case "up" | "down":
            most = abs(LEVELS[0] - camera.elevation) if change == "up" else abs(LEVELS[1] - camera.elevation)
            sign = -1 if change == "up" else 1
            return None if most < LEVEL[1] else replace(camera, elevation=float(camera.elevation + sign * level))
        case "closer":
            return replace(camera, distance=float(camera.distance * part))
        case "farther away":
            return replace(camera, distance=float(camera.distance / part))
    return replace(camera, fovy=float(rng.choice(fields) + rng.uniform(-SPREAD, SPREAD))) if fields else None


def rounded(value: float, step: int) -> int | None:
    """To the nearest multiple of `step`; None near to where that changes."""
    off = (value / step + 0.5) % 1
    return None if off < MARGIN or off > 1 - MARGIN else step * round(value / step)


def camera(pair: Pair) -> Iterator[Asked]:
    """Questions of `KINDS`; `views` are "first" and "second"."""
    for name, one in ((FIRST, pair.first), (SECOND, pair.second)):
        yield from _single(name, one)
    if pair.change:
        yield Asked(
            "change",
            (
                "The camera was moved or zoomed from the first picture to the second. Which of these happened: "
                f"{', '.join(CHANGES[:-1])} or {CHANGES[-1]}?",
                f"How did the camera change between the two pictures ({', '.join(CHANGES)})?",
            ),
            pair.change,
            ("change",),
            views=(FIRST, SECOND),
        )
    yield from _turn(pair)
    yield from _which(pair)


def _single(name: str, one: FreeCamera) -> Iterator[Asked]:
    for kind, value, unit, phrasings in (
        (
            "field-of-view",
            min(FIELDS, key=lambda field: abs(field - one.fovy)),
            "degrees",
            (
                f"What is the camera's vertical field of view: {', '.join(f'{f}' for f in FIELDS)} degrees?",
                "Estimate the vertical field of view of this picture's camera, to the nearest 15 degrees.",
                "How wide does the lens see from top to bottom, in steps of 15 degrees?",
            ),
        ),
        (
            "tilt",
            rounded(-one.elevation, TILT),
            "degrees",
            (
                f"How many degrees below the horizontal does the camera look, to the nearest {TILT}?",
                f"Estimate how far the camera is tilted down, in steps of {TILT} degrees.",
                f"By what angle does the camera look down (a multiple of {TILT} degrees; 90 is straight down)?",
            ),
        ),
        (
            "height",
            rounded(one.position[2] * 100, HEIGHT),
            "cm",
            (
                f"How high above the table is the camera, to the nearest {HEIGHT} cm?",
                f"Estimate the camera's height over the table top, in steps of {HEIGHT} cm.",
                f"How many centimetres lie between the table top and the camera's height (a multiple of {HEIGHT})?",
            ),
        ),
    ):
        if value is not None:
            yield Asked(kind, phrasings, f"{value} {unit}", (kind,), views=(name,))


def _turn(pair: Pair) -> Iterator[Asked]:
    turned = (pair.second.azimuth - pair.first.azimuth + 180) % 360 - 180
    step = rounded(abs(turned), TURN)
    if not step:
        return
    yield Asked(
        "turn",
        (
            f"By how many degrees, to the nearest {TURN}, did the camera go round the table from the first picture to "
            "the second, and to which of its sides?",
            f"How far round the table was the camera moved between the pictures (a multiple of {TURN} degrees), to its "
            "left or to its right?",
        ),
        f"{step} degrees to its {'right' if turned > 0 else 'left'}",
        ("turn",),
        views=(FIRST, SECOND),
    )


def _which(pair: Pair) -> Iterator[Asked]:
    """Which picture has more of something, where one clearly has."""
    one, two = pair.first, pair.second
    ratio = two.position[2] / one.position[2]
    nearer = one.distance / two.distance
    for kind, more, clear, phrasings in (
        (
            "higher",
            ratio > 1,
            max(ratio, 1 / ratio) >= CLEAR[0],
            (
                "Which picture was taken from higher above the table, the first or the second?",
                "In which of the two pictures is the camera higher up: the first or the second?",
            ),
        ),
        (
            "steeper",
            two.elevation < one.elevation,
            abs(two.elevation - one.elevation) >= CLEAR[1],
            (
                "In which picture does the camera look down more steeply, the first or the second?",
                "Which of the two views is more from above: the first or the second?",
            ),
        ),
        (
            "nearer-camera",
            nearer > 1,
            max(nearer, 1 / nearer) >= CLEAR[2],
            (
                "Which picture was taken from nearer to the middle of the table, the first or the second?",
                "In which of the two pictures is the camera closer to the table's middle: the first or the second?",
            ),
        ),
    ):
        if clear:
            yield Asked(kind, phrasings, SECOND if more else FIRST, (kind,), views=(FIRST, SECOND))
