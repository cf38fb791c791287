"""Demonstrations made ready once: what training reads of each frame, on disk, in parts that survive a kill.

A part holds a few episodes: `data` is what the backbone is not run on again (resized frames, the frozen vision
tower's output, or a frozen backbone's states), `chunks` the actions that follow each frame, `actions` all actions of
the episodes, for the normaliser.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embodied_midtrain.artifacts import PARTS, Skips, StageError, StageRun
from embodied_midtrain.episodes import BadEpisode, Episode, Robots, chunk_at
from embodied_midtrain.policies.codec import ActionCodec
from embodied_midtrain.policies.heads import Goal
from embodied_midtrain.progress import progress_bar

Make = Callable[[NDArray[np.uint8], list[str]], NDArray[np.generic]]
"""Frames [n, h, w, 3] and their instructions -> what is kept of each: [n, ...]."""


@dataclass(frozen=True)
class Wanted:
    """Which frames are used.

    Attributes:
        chunk: actions that follow a frame.
        stride: every n-th frame of an episode; the first one moves on from episode to episode, so that over the
            episodes all phases come up.
        tasks: only these; none: all.
        episodes_per_task: the first ones of each task; None: all.
    """

    chunk: int
    stride: int
    tasks: tuple[str, ...] = ()
    episodes_per_task: int | None = None
    episodes_per_part: int = 8


@dataclass(frozen=True)
class FrameStore:
    """The parts, opened.

    Attributes:
        data: one memory-mapped array a part, [frames of the part, ...].
        chunks: float32 [frames, chunk, width].
        actions: float32 [steps of all used episodes, width].
        episode: number of each frame's episode [frames].
        tasks, instructions, ids: of each episode.
        side: height in pixels that most of the demonstrations' frames have.
    """

    data: list[NDArray[np.generic]]
    chunks: NDArray[np.float32]
    actions: NDArray[np.float32]
    episode: NDArray[np.int64]
    tasks: list[str]
    instructions: list[str]
    ids: list[str]
    side: int

    def __len__(self) -> int:
        return len(self.chunks)

    def rows(self, index: NDArray[np.int64]) -> NDArray[np.generic]:
        """The data of some frames: [len(index), ...]."""
        starts = np.cumsum([0, *(len(part) for part in self.data)])
        part = np.searchsorted(starts, index, side="right") - 1
        return np.stack([self.data[p][i - starts[p]] for p, i in zip(part, index, strict=True)])

    def paraphrases(self) -> dict[str, list[str]]:
        """All instructions that the demonstrations have for a task, sorted."""
        found: dict[str, set[str]] = {}
        for task, instruction in zip(self.tasks, self.instructions, strict=True):
            found.setdefault(task, set()).add(instruction)
        return {task: sorted(texts) for task, texts in found.items()}

    def describe(self, index: NDArray[np.int64]) -> str:
        """Which episodes some frames are of."""
        names = sorted({self.ids[episode] for episode in self.episode[index]})
        return f"frames of episodes {', '.join(names[:8])}" + (f" and {len(names) - 8} more" if len(names) > 8 else "")

    def counts(self) -> dict[str, Any]:
        per_task = Counter(self.tasks)
        return {"frames": len(self), "episodes": len(self.tasks), "episodes_per_task": dict(sorted(per_task.items()))}


class Goals:
    """What the stored frames are to be answered with, on a device."""

    def __init__(self, codec: ActionCodec, store: FrameStore, device: torch.device) -> None:
        arm, closed = codec.encode(store.chunks)
        self._arm = torch.from_numpy(arm)
        self._closed = None if closed is None else torch.from_numpy(closed)
        self._device = device

    def __len__(self) -> int:
        return len(self._arm)

    def vectors(self) -> NDArray[np.float32]:
        """`Goal.vector` of all frames: [frames, chunk, width]."""
        vectors: NDArray[np.float32] = Goal(self._arm, self._closed).vector.numpy()
        return vectors

    def at(self, index: NDArray[np.int64]) -> Goal:
        """Of some frames."""
        closed = None if self._closed is None else self._closed[index].to(self._device)
        return Goal(self._arm[index].to(self._device), closed)


def collect(run: StageRun, robots: Robots, wanted: Wanted, make: Make, label: str) -> FrameStore:
    """Go through the demonstrations once, part by part; parts that are there are not made again.

    Raises:
        StageError: where no usable episode, or none of a wanted task, is among them.
    """
    parts = []
    with progress_bar(label, None) as bar:
        for number, episodes in enumerate(_parts(_chosen(robots, wanted), wanted.episodes_per_part)):
            facts = run.part(f"frames-{number:05d}")
            if facts is None:
                facts = _make_part(run, number, episodes, robots, wanted, make)
            parts.append(facts)
            bar.advance(facts["frames"])
            bar.say(f"{sum(len(p['episodes']) for p in parts)} episodes")
    return _open(run, parts, robots, wanted)


def _chosen(robots: Robots, wanted: Wanted) -> Iterator[tuple[int, Episode]]:
    seen: Counter[str] = Counter()
    number = 0
    for episode in robots:
        if wanted.tasks and episode.task not in wanted.tasks:
            continue
        if wanted.episodes_per_task is not None and seen[episode.task] >= wanted.episodes_per_task:
            continue
        seen[episode.task] += 1
        yield number, episode
        number += 1


def _parts(episodes: Iterator[tuple[int, Episode]], size: int) -> Iterator[list[tuple[int, Episode]]]:
    while part := list(itertools.islice(episodes, size)):
        yield part


def _make_part(
    run: StageRun, number: int, episodes: Sequence[tuple[int, Episode]], robots: Robots, wanted: Wanted, make: Make
) -> dict[str, Any]:
    skips = Skips()
    used, data, chunks, actions = [], [], [], []
    for place, episode in episodes:
        try:
            episode.check(robots.spec)
        except BadEpisode as error:
            skips.add(error.reason, episode.id, error.detail)
            continue
        at = np.arange(place % wanted.stride, len(episode.frames), wanted.stride)
        if not len(at):
            skips.add("too short", episode.id, f"{len(episode.frames)} frames at stride {wanted.stride}")
            continue
        made = make(episode.frames[at], [episode.instruction] * len(at))
        if made.dtype.kind == "f" and not np.isfinite(made).all():
            skips.add("nan feature", episode.id, "the backbone's output is not finite")
            continue
        data.append(made)
        chunks.append(np.stack([chunk_at(episode.actions, int(t), wanted.chunk) for t in at]))
        actions.append(episode.actions)
        used.append(
            {
                "id": episode.id,
                "task": episode.task,
                "instruction": episode.instruction,
                "frames": len(at),
                "side": episode.frames.shape[1],
            }
        )
    arrays: dict[str, list[NDArray[Any]]] = {"data": data, "chunks": chunks, "actions": actions} if used else {}
    writers = {
        f"{PARTS}/frames/{number:05d}-{name}.npy": _writer(np.concatenate(rows)) for name, rows in arrays.items()
    }
    frames = sum(len(d) for d in data)
    return run.commit_part(f"frames-{number:05d}", {"frames": frames, "episodes": used}, writers, skips)


def _writer(array: NDArray[np.generic]) -> Callable[[Path], None]:
    return lambda path: np.save(path, array)


def _open(run: StageRun, parts: Sequence[dict[str, Any]], robots: Robots, wanted: Wanted) -> FrameStore:
    numbers = [n for n, part in enumerate(parts) if part["frames"]]
    if not numbers:
        raise StageError(f"no usable episode in {robots.name}: see skipped episodes, or name other tasks")
    folder = run.out / PARTS / "frames"

    def load(name: str, mapped: bool = False) -> list[NDArray[Any]]:
        return [np.load(folder / f"{n:05d}-{name}.npy", mmap_mode="r" if mapped else None) for n in numbers]

    episodes = [episode for n in numbers for episode in parts[n]["episodes"]]
    tasks = [episode["task"] for episode in episodes]
    if missing := sorted({*wanted.tasks} - {*tasks}):
        raise StageError(f"{robots.name} has no usable episode of {', '.join(missing)}; record demonstrations of it")
    return FrameStore(
        data=load("data", mapped=True),
        chunks=np.concatenate(load("chunks")).astype(np.float32),
        actions=np.concatenate(load("actions")).astype(np.float32),
        episode=np.repeat(np.arange(len(episodes)), [episode["frames"] for episode in episodes]),
        tasks=tasks,
        instructions=[episode["instruction"] for episode in episodes],
        ids=[episode["id"] for episode in episodes],
        side=Counter(episode["side"] for episode in episodes).most_common(1)[0][0],
    )
