"""Traces beside demonstrations: recorded with a simulator's truth, kept in the demonstrations' own file, read back.

data/demo_0/truth                    attributes: things (JSON), forward, rate
data/demo_0/truth/place              [steps, 3], and opening, touched, held [steps]
data/demo_0/truth/looks              [looks], and low, high [looks, things, 3], fingers [looks, fingers, points, 3]
data/demo_0/truth/views/<camera>     seen, outlines, frames (where they are not those of obs), and the camera's
                                     geometry: position [looks, 3], axes [looks, 3, 3], focal, middle [looks, 2]
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.coupled.trace import Named, Things, Trace, View
from embodied_midtrain.episodes import BadEpisode, StoredFrames
from embodied_midtrain.extras import require
from embodied_midtrain.robots.hdf5 import CAMERA, demo_names, instruction_of
from embodied_midtrain.simulation.camera import Pinhole
from embodied_midtrain.simulation.truth import AGENT, Hand, Look, Truth

GROUP = "truth"
_PACKED: dict[str, Any] = {"compression": "gzip", "compression_opts": 1}


class Recorder:
    """Collects one episode's truth."""

    def __init__(self, truth: Truth, every: int) -> None:
        """`every`: steps from one look to the next."""
        self._truth, self._every = truth, every
        self._hands: list[Hand] = []
        self._looks: list[Look] = []

    def step(self, frame: NDArray[np.uint8]) -> None:
        """Call it before each action, with what the agent's camera shows."""
        if len(self._hands) % self._every == 0:
            self._looks.append(self._truth.look({AGENT: frame}))
        self._hands.append(self._truth.hand())

    def write(self, demo: Any, rate: float) -> None:
        """Into the group of a demo that `robots.hdf5.write_demo` made; the agent's frames are those of its obs."""
        group = demo.create_group(GROUP)
        things = [asdict(Named(prop.name, prop.grasped)) for prop in self._truth.props]
        group.attrs["things"] = json.dumps(things)
        group.attrs["forward"], group.attrs["rate"] = self._truth.forward, rate
        hands, looks = self._hands, self._looks
        arrays: dict[str, NDArray[Any]] = {
            "place": np.array([hand.place for hand in hands], np.float32),
            "opening": np.array([hand.opening for hand in hands], np.float32),
            "touched": np.array([hand.touched for hand in hands], np.int16),
            "held": np.array([hand.held for hand in hands], np.int16),
            "looks": np.arange(0, len(hands), self._every),
            "low": np.array([look.low for look in looks], np.float32),
            "high": np.array([look.high for look in looks], np.float32),
            "fingers": np.array([look.fingers for look in looks], np.float32),
        }
        _write(group, arrays)
        for name in self._truth.views:
            sights = [look.sights[name] for look in looks]
            cameras = [sight.camera for sight in sights]
            arrays = {
                "seen": np.stack([sight.seen for sight in sights]),
                "outlines": np.stack([sight.outlines for sight in sights]),
                **{part: np.array([getattr(one, part) for one in cameras]) for part in _CAMERA},
            }
            if name != AGENT:
                arrays["frames"] = np.stack([sight.frame for sight in sights])
            _write(group.create_group(f"views/{name}"), arrays)


_CAMERA = ("focal", "middle", "position", "axes")


def _write(group: Any, arrays: dict[str, NDArray[Any]]) -> None:
    for name, values in arrays.items():
        # Pictures are packed one by one, so that a reader may take some only.
        packed = {"chunks": (1, *values.shape[1:]), **_PACKED} if values.dtype == np.uint8 else {}
        group.create_dataset(name, data=values, track_times=False, **packed)


def recorded_traces(paths: Sequence[Path], skips: Skips) -> Iterator[Trace]:
    """The traces of demonstration files; frames stay in their file until they are asked for.

    Demos without truth, or with damaged truth, are added to `skips`.
    """
    h5py = require("h5py", "data")
    for path in paths:
        try:
            with h5py.File(path, "r") as file:
                for name in demo_names(file):
                    identity = f"{path.stem}/{name}"
                    demo = file["data"][name]
                    if GROUP not in demo:
                        skips.add("no truth", identity, "it was recorded without it: emt demos --truth-every 10")
                        continue
                    try:
                        yield _read(path, name, identity, file, demo)
                    except (KeyError, ValueError, TypeError, OSError, IndexError) as error:
                        skips.add("damaged truth", identity, str(error))
        except OSError as error:
            skips.add("unreadable file", path.name, str(error))


def _read(path: Path, name: str, identity: str, file: Any, demo: Any) -> Trace:
    group = demo[GROUP]
    looks = group["looks"][()].astype(np.int64)
    named = tuple(Named(thing["name"], thing["grasped"]) for thing in json.loads(group.attrs["things"]))
    views = []
    for view, part in group["views"].items():
        own = "frames" in part
        stored = f"data/{name}/{GROUP}/views/{view}/frames" if own else f"data/{name}/obs/{CAMERA}"
        shape = (len(looks), *file[stored].shape[1:])
        read = functools.partial(_frames, path, stored, None if own else looks)
        geometry = [part[key][()] for key in _CAMERA]
        cameras = [
            Pinhole((f[0], f[1]), (m[0], m[1]), position, axes) for f, m, position, axes in zip(*geometry, strict=True)
        ]
        views.append(View(view, StoredFrames(shape, read), cameras, part["seen"][()], part["outlines"][()]))
    return Trace(
        id=identity,
        task=path.stem,
        instruction=instruction_of(file["data"], demo),
        looks=looks,
        views=tuple(views),
        place=group["place"][()],
        opening=group["opening"][()],
        touched=group["touched"][()].astype(np.int64),
        held=group["held"][()].astype(np.int64),
        things=Things(named, group["low"][()], group["high"][()]),
        forward=np.asarray(group.attrs["forward"], float),
        fingers=group["fingers"][()],
        rate=float(group.attrs["rate"]),
    )


def _frames(path: Path, name: str, steps: NDArray[np.int64] | None, wanted: Sequence[int]) -> NDArray[np.uint8]:
    rows = list(wanted) if steps is None else steps[list(wanted)].tolist()
    try:
        with require("h5py", "data").File(path, "r") as file:
            return np.stack([file[name][row] for row in rows])
    except OSError as error:
        raise BadEpisode("damaged truth", f"{path.name}: {error}") from error
