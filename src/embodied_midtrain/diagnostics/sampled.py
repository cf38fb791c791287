"""The samples and frames behind drawn features: what is said, how large pictures are, some frames to look at."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.diagnostics.altered import Frame
from embodied_midtrain.diagnostics.traits import Traits, traits_of
from embodied_midtrain.episodes import BadEpisode, Episode, target_prompt
from embodied_midtrain.features.splits import episodes_of
from embodied_midtrain.features.store import FeatureTable
from embodied_midtrain.samples import BadSample, Pool, Sample


@dataclass(frozen=True)
class Drawn:
    """Samples that were drawn, in a random order.

    Attributes:
        samples: [n].
        traits: of each [n].
        pictures: a name of each one's pictures, equal for samples about the same [n].
        features: of each [n, dim].
        unreadable: samples that could not be read, by reason.
    """

    samples: list[Sample]
    traits: list[Traits]
    pictures: NDArray[np.str_]
    features: NDArray[np.float32]
    unreadable: dict[str, int]


def draw_samples(pool: Pool, near: FeatureTable, rng: np.random.Generator) -> Drawn:
    """The samples of the features `near`.

    Raises:
        StageError: where the pool lacks one of them.
    """
    keys = list(zip(near.sources.tolist(), near.ids.tolist(), strict=True))
    found = pool.find(keys)
    read: dict[int, tuple[Sample, Traits, str]] = {}
    unreadable: dict[str, int] = {}
    # In the order in which they lie in their files.
    for n, key in enumerate(keys):
        if key not in found:
            raise StageError(f"{'/'.join(key)} is not in {pool.name}; give the pool that the features are of.")
        try:
            sample = found[key]
            read[n] = sample, traits_of(sample), sample.seen()
        except BadSample as error:
            unreadable[error.reason] = unreadable.get(error.reason, 0) + 1
    order = [n for n in rng.permutation(len(keys)).tolist() if n in read]
    return Drawn(
        [read[n][0] for n in order],
        [read[n][1] for n in order],
        np.array([read[n][2] for n in order], np.str_),
        near.features[order],
        unreadable,
    )


class FrameDraw:
    """Collects the frames of the features `far` while the robot data stream by: `take` each episode, then `check`.

    Attributes:
        traits: of each frame so far.
        episodes: "task/episode" of each.
        frames: some of them, read.
    """

    def __init__(self, far: FeatureTable, *, prompt: str, count: int, rng: np.random.Generator) -> None:
        """`prompt` is the template that frames were embedded with; `count` frames are read."""
        self.traits: list[Traits] = []
        self.episodes: list[str] = []
        self.frames: list[Frame] = []
        self._prompt = prompt
        self._wanted: dict[str, list[tuple[int, bool]]] = {}
        read = set(rng.permutation(len(far))[:count].tolist())
        for n, (name, id) in enumerate(zip(episodes_of(far).tolist(), far.ids.tolist(), strict=True)):
            self._wanted.setdefault(name, []).append((int(id.rsplit("/", 1)[1]), n in read))

    def take(self, episode: Episode) -> None:
        """Raises `StageError` where the episode is shorter than the one that was embedded."""
        name = f"{episode.task}/{episode.id}"
        for index, look in self._wanted.pop(name, ()):
            if index >= len(episode.frames):
                raise StageError(f"{name} has no frame {index}; give the robot data that the features are of.")
            text = target_prompt(episode.instruction, self._prompt)
            height, width = episode.frames.shape[1:3]
            self.traits.append(Traits(text, ((width, height),)))
            self.episodes.append(name)
            if look:
                with contextlib.suppress(BadEpisode):
                    self.frames.append(Frame(episode.frames[index], text, name))

    def check(self, name: str) -> None:
        """Raises `StageError` where the robot data `name` lacked an episode."""
        if self._wanted:
            raise StageError(
                f"{name} lacks {len(self._wanted)} episodes that the features are of, such as "
                f"{next(iter(self._wanted))}; give the robot data that was embedded."
            )
