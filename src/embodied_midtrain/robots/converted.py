"""Robot data with their actions in another convention, episode by episode."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Skips, StageError
from embodied_midtrain.episodes import ActionSpec, BadEpisode, Episode, Frames, Robots, StoredFrames
from embodied_midtrain.robots.conversions import check_conversion
from embodied_midtrain.robots.convert import States, convert_actions


class ConvertedRobots:
    """`robots` as if they had been recorded in the convention `spec`: see `episodes.Robots`.

    Where the rate is lower, the frames kept are those at which the composed actions start.

    Args:
        state_spec: what the numbers of the episodes' states mean, where the conversion needs them.

    Raises:
        StageError: where the conversion is not defined; the message names what is missing.
    """

    def __init__(self, robots: Robots, spec: ActionSpec, skips: Skips, *, state_spec: ActionSpec | None = None) -> None:
        self._inner, self._skips, self._state_spec = robots, skips, state_spec
        self._reported: set[str] = set()
        self.name, self.spec = robots.name, spec
        try:
            self._stride = 1 if robots.spec == spec else check_conversion(robots.spec, spec, state_spec)
        except ValueError as error:
            raise StageError(f"{robots.name}: its actions cannot be converted: {error}.") from error

    def __iter__(self) -> Iterator[Episode]:
        given = 0
        for episode in self._inner:
            try:
                converted = self._converted(episode)
            except BadEpisode as error:
                if episode.id not in self._reported:
                    self._reported.add(episode.id)
                    self._skips.add(error.reason, episode.id, error.detail)
                continue
            given += 1
            yield converted
        if not given:
            raise StageError(f"{self.name}: no episode could be converted (skipped: {self._skips.summary()}).")

    def fingerprint(self) -> str:
        """Of the data and both conventions."""
        state = self._state_spec.to_json() if self._state_spec is not None else None
        parts = [self._inner.fingerprint(), self.spec.to_json(), state]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def _converted(self, episode: Episode) -> Episode:
        state = None
        if self._state_spec is not None:
            if episode.state is None:
                raise BadEpisode("missing state", f"{episode.id}: name where it stands with --state")
            if episode.state.shape[1] != self._state_spec.width:
                raise BadEpisode(
                    "bad state",
                    f"{episode.id}: {episode.state.shape[1]} numbers, the spec has {self._state_spec.width}",
                )
            state = States(self._state_spec, episode.state)
        try:
            actions = convert_actions(episode.actions, self._inner.spec, self.spec, state)
        except ValueError as error:
            raise BadEpisode("cannot be converted", f"{episode.id}: {error}") from error
        if self._stride == 1:
            return replace(episode, actions=actions)
        states = None if episode.state is None else episode.state[:: self._stride]
        return replace(episode, actions=actions, frames=_every(episode.frames, self._stride), state=states)


def _every(frames: Frames, stride: int) -> StoredFrames:
    kept = np.arange(0, len(frames), stride)

    def read(wanted: Sequence[int]) -> NDArray[np.uint8]:
        return frames[kept[list(wanted)]]

    return StoredFrames((len(kept), *frames.shape[1:]), read)
