"""A tiny world with exact truth: cubes on a table, a hand of two bars, drawn as the outlines of their corners."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw
from scipy.spatial import ConvexHull

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.coupled.opening import Traces
from embodied_midtrain.coupled.trace import Named, Things, Trace, View
from embodied_midtrain.simulation.camera import FreeCamera, Pinhole
from embodied_midtrain.simulation.truth import FINGERS, FIRST

SIDE = 96
CAMERA = FreeCamera(lookat=(0.0, 0.0, 0.05), distance=0.9, azimuth=120.0, elevation=-40.0)
CORNERS = np.array(list(itertools.product((-1, 1), repeat=3)), float)
HALF = 0.03
NAMES = ("red cube", "blue cube", "wall")
PLACES = np.array([[-0.12, 0.05, HALF], [0.15, -0.05, HALF], [0.0, 0.25, HALF]])
SHADES = [(0, 0, 0), (0, 0, 0), (200, 200, 200), (255, 0, 0), (0, 0, 255), (90, 90, 90)]


def straight(start, end, steps):
    return np.linspace(start, end, steps, endpoint=False)


def hand_path():
    """Approach the first cube, take it, carry it to the second, let go, go away: [steps, 3], opening, held."""
    one, two, high = PLACES[0], PLACES[1] + np.array([0, 0, 0.07]), np.array([0.0, 0.0, 0.3])
    parts = [
        (straight(high, one, 20), np.ones(20), -1),
        (np.repeat(one[None], 6, 0), np.linspace(1, 0.3, 6), -1),
        (straight(one, one + np.array([0, 0, 0.2]), 10), np.full(10, 0.3), 0),
        (straight(one + np.array([0, 0, 0.2]), two, 16), np.full(16, 0.3), 0),
        (np.repeat(two[None], 6, 0), np.linspace(0.3, 1, 6), -1),
        (straight(two, high, 12), np.ones(12), -1),
    ]
    return (
        np.concatenate([p for p, _, _ in parts]),
        np.concatenate([o for _, o, _ in parts]),
        np.concatenate([np.full(len(p), h) for p, _, h in parts]),
    )


def wrist_camera(place):
    """Above the hand, looking down."""
    axes = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, -1.0]])
    return Pinhole.of_fovy(90.0, (SIDE, SIDE), place + np.array([0.0, 0.02, 0.25]), axes)


def bars(place, opening):
    """The two fingers' points: [2, 8, 3]."""
    return np.stack(
        [place + CORNERS * (0.008, 0.008, 0.03) + (side * (0.035 + 0.02 * opening), 0, 0.03) for side in (-1, 1)]
    )


def drawn(camera, bodies):
    """Which body each pixel shows, the farthest first, and how many pixels each would cover alone."""
    picture, outlines = Image.new("L", (SIDE, SIDE)), []
    order = sorted(bodies, key=lambda row: -camera.project(row[1])[:, 2].mean())
    for meaning, points in order:
        seen = camera.project(points)
        if seen[:, 2].min() > 0.01:
            hull = ConvexHull(seen[:, :2])
            corners = [(x - 0.5, y - 0.5) for x, y in seen[hull.vertices, :2]]
            ImageDraw.Draw(picture).polygon(corners, fill=meaning)
            outlines.append((meaning, hull.volume))
    found = dict(outlines)
    return np.asarray(picture).copy(), [found.get(FIRST + n, 0.0) for n in range(len(NAMES))]


def trace(number=0, every=4, shift=(0.0, 0.0, 0.0), instruction="put the red cube on the blue cube"):
    """One episode; `shift` moves the whole scene."""
    place, opening, held = hand_path()
    place, looks = place + shift, np.arange(0, len(place), every)
    things = np.repeat((PLACES + shift)[None], len(place), 0)
    things[held == 0, 0] = place[held == 0]
    last = np.nonzero(held == 0)[0][-1]
    things[last + 1 :, 0] = place[last]
    fingers = np.stack([bars(place[step], opening[step]) for step in looks])
    views = []
    for name in ("agent", "wrist"):
        cameras, seen, outlines = [], [], []
        for look, step in enumerate(looks):
            camera = CAMERA.pinhole((SIDE, SIDE)) if name == "agent" else wrist_camera(place[step])
            cubes = [(FIRST + n, things[step, n] + CORNERS * HALF) for n in range(len(NAMES))]
            shown, outline = drawn(camera, [*cubes, *((FINGERS, finger) for finger in fingers[look])])
            cameras.append(camera)
            seen.append(shown)
            outlines.append(outline)
        frames = np.array(SHADES, np.uint8)[np.stack(seen)]
        views.append(View(name, frames, cameras, np.stack(seen), np.array(outlines, np.float32)))
    return Trace(
        id=f"made/demo_{number}",
        task="stack",
        instruction=instruction,
        looks=looks,
        views=tuple(views),
        place=place.astype(np.float32),
        opening=opening.astype(np.float32),
        touched=held.copy(),
        held=held,
        things=Things(
            tuple(Named(name, grasped=name != "wall") for name in NAMES),
            (things[looks] - HALF).astype(np.float32),
            (things[looks] + HALF).astype(np.float32),
        ),
        forward=np.array([0.0, 1.0, 0.0]),
        fingers=fingers.astype(np.float32),
        rate=20.0,
    )


def several(count=4):
    """Episodes whose scenes stand elsewhere."""
    rng = np.random.default_rng(0)
    return [trace(n, shift=(*rng.uniform(-0.05, 0.05, 2), 0.0)) for n in range(count)]


def as_traces(found, name="made"):
    return Traces(name, f"{name}-{len(found)}", len(found), Skips(), lambda: iter(found))


def without(found, **absent):
    """The same trace, or all of its views, with parts left out."""
    of_views = {key: None for key in absent if key in ("cameras", "seen", "outlines")}
    views = tuple(replace(view, **of_views) for view in found.views)
    return replace(found, views=views, **{key: None for key in absent if key not in of_views})
