"""What is embedded: rows of a pool or a target, cut into windows, each of one source only.

A window is the unit of work and what one shard holds. Since none crosses from one source to the next, a source's
windows, and with them its features, are the same whatever else the pool holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.episodes import BadEpisode, Frames, Robots, target_prompt
from embodied_midtrain.samples import BadSample, Pool, Sample
from embodied_midtrain.sources.opening import sections


class Item(Protocol):
    """One row to embed; once packed it can be sent to another process."""

    @property
    def key(self) -> tuple[str, str]: ...

    def render(self, backbone: Backbone) -> Rendered:
        """Raises: BadSample."""
        ...

    def packed(self) -> Item:
        """With everything that lies in no file."""
        ...

    def look(self) -> None:
        """Read what it refers to. Raises: BadSample."""
        ...


@dataclass(frozen=True, slots=True)
class SampleItem:
    sample: Sample

    @property
    def key(self) -> tuple[str, str]:
        return self.sample.key

    def render(self, backbone: Backbone) -> Rendered:
        return backbone.render(self.sample)

    def packed(self) -> Item:
        return self

    def look(self) -> None:
        for picture in self.sample.pictures:
            picture.read()


@dataclass(frozen=True, slots=True)
class FrameItem:
    key: tuple[str, str]
    frames: Frames
    index: int
    text: str

    def render(self, backbone: Backbone) -> Rendered:
        try:
            return backbone.prompt(self.frames[self.index], self.text)
        except BadEpisode as error:
            raise BadSample(error.reason, error.detail) from error

    def packed(self) -> Item:
        # Readers of robot data hold open files, and one frame is small.
        try:
            return FrameItem(self.key, np.array(self.frames[self.index])[None], 0, self.text)
        except BadEpisode as error:
            return BadItem(self.key, error.reason, error.detail)

    def look(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class BadItem:
    """Stands for a row that could not be read."""

    key: tuple[str, str]
    reason: str
    detail: str

    def render(self, backbone: Backbone) -> Rendered:
        raise BadSample(self.reason, self.detail)

    def packed(self) -> Item:
        return self

    def look(self) -> None:
        pass


@dataclass(frozen=True)
class Stretch:
    """The rows of one source."""

    name: str
    fingerprint: str
    items: Callable[[], Iterator[Item]]


@dataclass(frozen=True)
class Window:
    """Consecutive rows of one source, under the name of their part."""

    key: str
    items: list[Item]


def pool_stretches(pool: Pool) -> list[Stretch]:
    def items_of(samples: Callable[[], Iterator[Sample]]) -> Callable[[], Iterator[Item]]:
        return lambda: (SampleItem(sample) for sample in samples())

    return [Stretch(one.name, one.fingerprint, items_of(one.samples)) for one in sections(pool)]


def target_stretch(robots: Robots, frames_per_episode: int, prompt: str) -> Stretch:
    """Frames of every episode, evenly spaced; the source is the task."""

    def items() -> Iterator[Item]:
        for episode in robots:
            count = min(frames_per_episode, len(episode.frames))
            text = target_prompt(episode.instruction, prompt)
            for index in np.linspace(0, len(episode.frames) - 1, count).round().astype(int).tolist():
                yield FrameItem((episode.task, f"{episode.id}/{index:04d}"), episode.frames, index, text)

    return Stretch(robots.name, robots.fingerprint(), items)


def part_key(stretch: int, window: int) -> str:
    return f"{stretch:04d}-{window:06d}"


def end_key(stretch: int) -> str:
    """Of the record that says how many windows a source has."""
    return f"{stretch:04d}-end"


def windows_of(items: Iterable[Item], stretch: int, size: int) -> Iterator[Window]:
    stream = iter(items)
    for number in itertools.count():
        window = list(itertools.islice(stream, size))
        if not window:
            return
        yield Window(part_key(stretch, number), window)
