"""Pool samples that ARE target frames, by the perceptual hashes of every picture.

Both sides are decoded once, part by part; each part's hashes are a file of the artifact, so that a killed run goes on.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from embodied_midtrain.artifacts import Skips, StageRun, atomic_path, refuse_if_bad
from embodied_midtrain.diagnostics.hashing import near_copies, perceptual_hash
from embodied_midtrain.episodes import BadEpisode, Episode, Robots
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.samples import BadSample, Pool, Sample

T = TypeVar("T")
PART = 1024
"""Samples of one part: what a killed run loses at most."""
EPISODES = 32
"""The same, of the target."""
AHEAD = 8
"""Samples or episodes that are read before they are hashed."""
SCHEMA = pa.schema([("source", pa.string()), ("id", pa.string()), ("hash", pa.uint64())])


@dataclass(frozen=True)
class Leaks:
    """What the check found.

    Attributes:
        pictures, frames: hashed of pool and target.
        rows: (source, id, task, "episode/frame", bits that differ) of each sample that shows a target frame.
    """

    pictures: int
    frames: int
    rows: list[tuple[str, str, str, str, int]]


Hashed = list[tuple[str, str, int]]


def hash_target(
    run: StageRun, robots: Robots, *, stride: int, workers: int, also: Callable[[Episode], None] | None = None
) -> None:
    """Hash the target's frames, part by part.

    Args:
        stride: one frame in so many is hashed; the ones between are near copies of these. 0: none.
        also: called with each episode as it passes, for reading robot data twice is slow.
    """

    def passing() -> Iterator[Episode]:
        for episode in robots:
            if also is not None:
                also(episode)
            yield episode

    if not stride:
        for _ in passing():
            pass
        return
    with ThreadPoolExecutor(workers) as threads:
        _hash(run, "target", passing(), EPISODES, partial(_of_episode, stride=stride), threads)


def find_leaks(run: StageRun, pool: Pool, *, skips: Skips, most: int, workers: int, max_bad: float) -> Leaks:
    """Compare every picture of the pool with the hashes of `hash_target`; writes `leaks.parquet` into the artifact.

    Args:
        skips: the list that the pool's reader adds to.
        most: bits in which the hashes of a near copy differ at most.
        max_bad: share of the pool's samples that may be left out.

    Raises:
        StageError: where too many samples are bad.
    """
    with ThreadPoolExecutor(workers) as threads:
        used, left_out = _hash(run, "pool", pool, PART, _of_sample, threads)
    faults = [*skips.rows, *left_out]
    refuse_if_bad(run, used, len(faults), max_bad, faults.copy)
    frames = pa.concat_tables([pq.read_table(path) for path in _files(run, "target")])
    there = frames["hash"].to_numpy()
    rows = []
    for path in _files(run, "pool"):
        table = pq.read_table(path)
        here, nearest, apart = near_copies(table["hash"].to_numpy(), there, most)
        for n, m, bits in zip(here.tolist(), nearest.tolist(), apart.tolist(), strict=True):
            key = (table["source"][n].as_py(), table["id"][n].as_py())
            rows.append((*key, frames["source"][m].as_py(), frames["id"][m].as_py(), bits))
    names = ("source", "id", "task", "frame", "bits")
    with atomic_path(run.file("leaks.parquet")) as path:
        types = [pa.string()] * 4 + [pa.int64()]
        columns = [pa.array([row[n] for row in rows], kind) for n, kind in enumerate(types)]
        pq.write_table(pa.table(columns, names=list(names)), path)
    return Leaks(sum(pq.read_metadata(path).num_rows for path in _files(run, "pool")), len(frames), rows)


def _of_sample(sample: Sample) -> Hashed:
    found = ((*sample.key, perceptual_hash(picture.decode())) for picture in sample.pictures)
    return [(source, id, value) for source, id, value in found if value is not None]


def _of_episode(episode: Episode, stride: int) -> Hashed:
    try:
        length = len(episode.frames)
        found = []
        for index in range(0, length, stride):
            value = perceptual_hash(Image.fromarray(episode.frames[index]))
            if value is not None:
                found.append((episode.task, f"{episode.id}/{index:04d}", value))
        return found
    except BadEpisode as error:
        raise BadSample(error.reason, error.detail) from error


def _hash(
    run: StageRun,
    side: str,
    items: Iterable[T],
    size: int,
    work: Callable[[T], Hashed],
    threads: ThreadPoolExecutor,
) -> tuple[int, list[dict[str, str]]]:
    """Hash a side part by part; returns how many could be, and what was left out."""
    used = 0
    left_out: list[dict[str, str]] = []
    stream = iter(items)
    with progress_bar(f"compare {side}", None) as bar:
        for number in itertools.count():
            key = f"{side}-{number:06d}"
            record, part = run.part(key), itertools.islice(stream, size)
            if record is not None:
                seen = sum(1 for _ in part)
                bar.advance(seen)
            else:
                rows, skips, seen = [], Skips(), 0
                for name, found in _in_order(part, work, threads):
                    seen += 1
                    bar.advance()
                    if isinstance(found, BadSample):
                        skips.add(found.reason, name, found.detail)
                    else:
                        rows += found
                if not seen:
                    break
                writers = {f"hashes/{key}.parquet": partial(_write, rows=rows)}
                record = run.commit_part(key, {"rows": seen - len(skips)}, writers, skips)
            used += int(record["rows"])
            left_out += record["skipped"]
            bar.say(f"{len(left_out)} skipped" if left_out else "")
            if seen < size:
                break
    return used, left_out


def _in_order(
    items: Iterable[T], work: Callable[[T], Hashed], threads: ThreadPoolExecutor
) -> Iterator[tuple[str, Hashed | BadSample]]:
    """Name and result of each, in their order; only a few are in memory at once, for an episode can be large."""
    waiting: deque[tuple[str, Future[Hashed | BadSample]]] = deque()
    for item in items:
        waiting.append((_name(item), threads.submit(_attempt, work, item)))
        if len(waiting) > AHEAD:
            name, future = waiting.popleft()
            yield name, future.result()
    for name, future in waiting:
        yield name, future.result()


def _attempt(work: Callable[[T], Hashed], item: T) -> Hashed | BadSample:
    try:
        return work(item)
    except BadSample as error:
        return error


def _name(item: object) -> str:
    return "/".join(item.key) if isinstance(item, Sample) else str(getattr(item, "id", item))


def _write(path: Path, rows: Hashed) -> None:
    columns: list[list[str] | list[int]] = [[r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]]
    pq.write_table(pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA), path)


def _files(run: StageRun, side: str) -> list[Path]:
    return sorted(run.file("hashes").glob(f"{side}-*.parquet"))
