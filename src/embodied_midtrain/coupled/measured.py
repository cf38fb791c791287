"""Traces of data without a simulator: pictures, the measured place of the hand, perhaps a gripper and a calibration.

What things there are and where is not known then, and questions that need it are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Skips, StageError
from embodied_midtrain.coupled.calibration import Calibration
from embodied_midtrain.coupled.trace import Trace, View
from embodied_midtrain.episodes import Episode, Frames, Robots, StoredFrames
from embodied_midtrain.simulation.truth import AGENT


@dataclass(frozen=True)
class MeasuredConfig:
    """Which numbers of the state mean what, for data that were not recorded with their truth."""

    state: str = ""
    """The data's name of the state, such as observation.state, robot_obs or "ee_pos,gripper_states"."""
    place: tuple[int, int, int] = (0, 1, 2)
    """Indices of the hand's x, y and z, metres."""
    opening: int | None = None
    """Index of the gripper's opening; none: the gripper's events are not known."""
    closed_is_high: bool = False
    """Whether a larger number there means a more closed gripper."""
    tracked: tuple[int, int] | None = None
    """Indices of the gripper's column and row in the picture, pixels, where it was tracked (nan where it was lost): it
    stands in for a calibration."""
    every: int = 5
    """Steps from one picture that may be asked about to the next."""


def measured_traces(
    robots: Robots, config: MeasuredConfig, calibration: Calibration | None, skips: Skips, camera: str | None
) -> Iterator[Trace]:
    """One trace an episode; `camera` is the calibration's name of the pictures' camera, by default the only one.

    Raises:
        StageError: where an index is outside the state, or the calibration does not name the camera.
    """
    if config.every < 1:
        raise StageError(f"every {config.every}: wanted at least 1 step")
    for episode in robots:
        place = _columns(episode, config.place)
        opening = None if config.opening is None else _columns(episode, (config.opening,))
        if any(part is not None and not np.isfinite(part).all() for part in (place, opening)):
            skips.add("nan state", episode.id)
            continue
        looks = np.arange(0, len(episode.frames), config.every)
        view = _view(episode, looks, calibration, camera)
        if config.tracked is not None:
            view = replace(view, track=_columns(episode, config.tracked))
        yield Trace(
            id=episode.id,
            task=episode.task,
            instruction=episode.instruction,
            looks=looks,
            views=(view,),
            place=place,
            opening=None if opening is None else _part_open(opening[:, 0], config.closed_is_high),
            rate=robots.spec.rate,
        )


def _view(episode: Episode, looks: NDArray[np.int64], calibration: Calibration | None, camera: str | None) -> View:
    view = View(AGENT, _kept(episode.frames, looks))
    if calibration is None:
        return view
    entries = calibration.episodes.get(episode.id, calibration.cameras)
    only = entries if camera is None and len(entries) == 1 else ()
    name = next((name for name in (camera, AGENT, *only) if name in entries), None)
    if name is None:
        raise StageError(f"the calibration names {', '.join(entries) or 'no camera'}, but not {camera or AGENT!r}")
    return View(AGENT, view.frames, [entries[name].pinhole(view.size)] * len(looks))


def _kept(frames: Frames, looks: NDArray[np.int64]) -> StoredFrames:
    return StoredFrames((len(looks), *frames.shape[1:]), lambda wanted: frames[looks[list(wanted)].tolist()])


def _columns(episode: Episode, wanted: Sequence[int]) -> NDArray[np.float32] | None:
    if episode.state is None:
        return None
    width = episode.state.shape[1]
    if strangers := [index for index in wanted if not 0 <= index < width]:
        raise StageError(
            f"{episode.id}: the state has {width} numbers, there is no index {strangers[0]}; say with --place, "
            "--opening and --tracked which ones are meant"
        )
    return episode.state[:, list(wanted)]


def _part_open(values: NDArray[np.float32], closed_is_high: bool) -> NDArray[np.float32]:
    """In [0, 1] over the episode's own range. [steps]"""
    values = -values if closed_is_high else values
    return (values - values.min()) / max(float(np.ptp(values)), 1e-9)
