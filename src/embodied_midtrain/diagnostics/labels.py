"""What a frame's features may say of the robot: labels for `emt probe`, frame by frame.

- actions: the chunk of actions that follows, as a policy is trained on it;
- gripper: whether the gripper is told to close now;
- phase: how often the gripper was told otherwise so far (0: on the way, 1: grasped, 2: let go, at most 3);
- instruction: which one;
- state: whatever numbers the data hold of each frame, such as places of objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.episodes import ActionSpec, Robots

LAST_PHASE = 3
MOST = 200
"""Instructions: where there are more, hardly any is said twice."""
Place = tuple[str, str]
"""An episode's task and id."""


@dataclass(frozen=True)
class Track:
    """What is kept of an episode: everything but its frames."""

    instruction: str
    actions: NDArray[np.float32]
    state: NDArray[np.float32] | None


@dataclass(frozen=True)
class Labels:
    """One target.

    Attributes:
        name: what it is called in the results.
        values: of each episode, a row a frame: float32 [time, columns], or a class a frame: int64 [time].
        parts: names of the columns' parts, or of the classes.
        part: the part of each column [columns]; None: these are classes.
    """

    name: str
    values: Sequence[NDArray[np.float32]] | Sequence[NDArray[np.int64]]
    parts: tuple[str, ...]
    part: NDArray[np.int64] | None


def tracks_of(robots: Robots) -> dict[Place, Track]:
    """Every episode's, in the order of the data."""
    return {(e.task, e.id): Track(e.instruction, e.actions, e.state) for e in robots}


def labels_of(
    tracks: Mapping[Place, Track], spec: ActionSpec, *, chunk: int, state: str | None
) -> tuple[list[Labels], dict[str, str]]:
    """The targets that the data have, and why they have not the others.

    Args:
        chunk: actions that are to be read from a frame.
        state: what the data call the numbers of `Track.state`.
    """
    every = list(tracks.values())
    made = [_actions(every, spec, chunk)]
    missing: dict[str, str] = {}
    if spec.gripper is None:
        missing |= dict.fromkeys(("gripper", "phase"), "the action spec names no gripper")
    else:
        closed = [_closed(track.actions, spec) for track in every]
        made.append(Labels("gripper", closed, ("open", "closed"), None))
        phases = [np.minimum(np.abs(np.diff(c, prepend=c[:1])).cumsum(), LAST_PHASE) for c in closed]
        names = tuple(f"after {n} gripper events" for n in range(LAST_PHASE + 1))
        made.append(Labels("phase", phases, names, None))
    said = sorted({track.instruction for track in every})
    if len(said) > MOST:
        missing["instruction"] = f"{len(said)} different ones; at most {MOST} are told apart"
    else:
        number = {text: n for n, text in enumerate(said)}
        which = [np.full(len(track.actions), number[track.instruction], np.int64) for track in every]
        made.append(Labels("instruction", which, tuple(said), None))
    if state is None:
        missing["state"] = "no --state was named"
    else:
        found = [track.state for track in every if track.state is not None]
        if len(found) < len(every) or not all(np.isfinite(values).all() for values in found):
            missing["state"] = f"{state}: not in every episode, or not finite"
        elif len({values.shape[1] for values in found}) != 1:
            missing["state"] = f"{state}: of different widths"
        else:
            width = found[0].shape[1]
            made.append(Labels("state", found, tuple(f"{state}[{n}]" for n in range(width)), np.arange(width)))
    return made, missing


def _actions(tracks: Sequence[Track], spec: ActionSpec, chunk: int) -> Labels:
    values = []
    for track in tracks:
        at = np.minimum(np.arange(len(track.actions))[:, None] + np.arange(chunk), len(track.actions) - 1)
        values.append(track.actions[at].reshape(len(track.actions), -1))
    return Labels("actions", values, spec.names, np.tile(np.arange(spec.width), chunk))


def _closed(actions: NDArray[np.float32], spec: ActionSpec) -> NDArray[np.int64]:
    assert spec.gripper is not None
    bounds = np.array([spec.low[spec.gripper], spec.high[spec.gripper]])
    middle = bounds.mean() if np.isfinite(bounds).all() else 0.0
    return ((actions[:, spec.gripper] - middle) * spec.gripper_closed > 0).astype(np.int64)


@dataclass(frozen=True)
class Rows:
    """Where each row of the features is: the number of its episode, of its frame, and of an episode to mix it up with.

    Attributes:
        episode, frame: [rows].
        other, other_frame: another episode, and as far into it [rows].
    """

    episode: NDArray[np.int64]
    frame: NDArray[np.int64]
    other: NDArray[np.int64]
    other_frame: NDArray[np.int64]


def rows_at(episode: NDArray[np.int64], frame: NDArray[np.int64], lengths: NDArray[np.int64], seed: int) -> Rows:
    """With a partner for each of the episodes that occur: none is its own, and each is one's.

    Frames keep how far into their episode they are, so that what time alone says stays in the control.
    """
    there = np.unique(episode)
    random = np.random.default_rng(seed)
    ring = random.permutation(there)
    partner = np.zeros(len(lengths), np.int64)
    partner[ring] = np.roll(ring, 1)
    other = partner[episode]
    share = frame / np.maximum(lengths[episode] - 1, 1)
    return Rows(episode, frame, other, np.round(share * (lengths[other] - 1)).astype(np.int64))


def take(labels: Labels, episode: NDArray[np.int64], frame: NDArray[np.int64]) -> NDArray[Any]:
    """The labels of these frames: [rows, columns] or [rows]."""
    starts = np.concatenate([[0], np.cumsum([len(values) for values in labels.values])[:-1]])
    found: NDArray[Any] = np.concatenate(labels.values)[starts[episode] + frame]
    return found
