"""LeRobot data sets, versions 2.1 and 3: Parquet tables with videos or images, read without lerobot.

v2.1 has one table and one video per camera for each episode. v3 puts many episodes into one file; `meta/episodes` says
in which file each lies, from which row to which, and from which second of the video on.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Skips, StageError, read_json
from embodied_midtrain.episodes import ActionSpec, BadEpisode, Episode, StoredFrames
from embodied_midtrain.robots.known import known_spec
from embodied_midtrain.robots.video import frames_at
from embodied_midtrain.samples import BadSample, decode_image

INFO = "meta/info.json"
ACTION, TIME, TASK = "action", "timestamp", "task_index"
SPEC = "action_spec"
"""Key of info.json under which our own writer says what actions mean."""


@dataclass(frozen=True)
class Entry:
    """Where one episode lies.

    Attributes:
        number: its index in the data set.
        length: frames.
        table: file of its rows.
        rows: first row in that file and the one after the last; None: all.
        video: file and the second at which the episode starts in it; None where images are in the table.
        tasks: instructions, where the episode itself names them.
    """

    number: int
    length: int
    table: Path
    rows: tuple[int, int] | None
    video: tuple[Path, float] | None
    tasks: tuple[str, ...]


class LeRobotRobots:
    """The episodes of a data set: see `episodes.Robots`. Frames stay in their videos until they are asked for.

    Raises:
        StageError: where the folder holds no data set of a known version, or no such camera.
    """

    def __init__(
        self,
        folder: Path,
        skips: Skips,
        *,
        camera: str | None = None,
        spec: ActionSpec | None = None,
        state: str | None = None,
    ) -> None:
        self.folder = folder
        self._state = state
        self.name = folder.name
        self._skips = skips
        self._reported: set[str] = set()
        info = read_json(folder / INFO)
        self._info: dict[str, Any] = info
        try:
            self.version = str(info.get("codebase_version", "unknown"))
            self._features: dict[str, dict[str, Any]] = info["features"]
            self._rate = float(info["fps"])
            width = int(self._features[ACTION]["shape"][0])
            self._camera = _pick_camera(self._features, camera, folder)
            self._size = _size(self._features[self._camera])
            if not 0 < self._rate < math.inf:
                raise ValueError(f"fps {self._rate}")
            self.spec = (
                spec or _own_spec(info, folder) or known_spec(self.name, width) or _unknown(self._features, self._rate)
            )
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise StageError(f"{folder / INFO} lacks what a LeRobot data set needs: {error!r}") from error
        if state is not None and state not in self._features:
            raise StageError(f"{folder}: no state {state!r} among: {', '.join(self._features)}.")
        self._in_video = self._features[self._camera]["dtype"] == "video"
        if self.spec.width != width:
            raise StageError(f"{folder}: actions are {width} wide, the spec that was given {self.spec.width}.")
        try:
            self._tasks = _tasks(folder)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise StageError(f"{folder}/meta: the list of tasks is damaged: {error!r}") from error

    def __iter__(self) -> Iterator[Episode]:
        given = 0
        for entry in self.entries():
            try:
                episode = self._episode(entry)
                episode.check(self.spec)
            except BadEpisode as error:
                self._skip(error.reason, f"episode {entry.number}", error.detail)
                continue
            given += 1
            yield episode
        if not given:
            raise StageError(f"{self.name}: a target with no frames ({self._skips.example()}).")

    def fingerprint(self) -> str:
        """Of names, sizes and times of all files."""
        digest = hashlib.sha256(json.dumps([self._camera, self.spec.to_json()]).encode())
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
            stat = path.stat()
            digest.update(f"{path.relative_to(self.folder)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]

    def entries(self) -> Iterator[Entry]:
        """Where each episode lies, in order.

        Raises:
            StageError: on a version that is not known, or where the list of episodes is missing or damaged.
        """
        if not self.version.startswith(("v2", "v3")):
            raise StageError(
                f"{self.folder} is of LeRobot's version {self.version}; versions 2 and 3 are read. "
                "lerobot's own converters bring older ones up to date."
            )
        try:
            yield from self._entries_v3() if self.version.startswith("v3") else self._entries_v2()
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise StageError(f"{self.folder}/meta: the list of episodes is damaged: {error!r}") from error

    def _entries_v2(self) -> Iterator[Entry]:
        chunk = int(self._info.get("chunks_size", 1000))
        for row in _json_lines(self.folder / "meta/episodes.jsonl"):
            number, length = int(row["episode_index"]), int(row["length"])
            names: dict[str, Any] = {
                "episode_chunk": number // chunk,
                "episode_index": number,
                "video_key": self._camera,
            }
            video = (self._path(str(self._info["video_path"]), names), 0.0) if self._in_video else None
            tasks = tuple(str(task) for task in row.get("tasks", ()))
            yield Entry(number, length, self._path(str(self._info["data_path"]), names), None, video, tasks)

    def _entries_v3(self) -> Iterator[Entry]:
        firsts: dict[Path, int] = {}
        for path in sorted((self.folder / "meta/episodes").glob("**/*.parquet")):
            for row in _table(path, None).to_pylist():
                names = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
                table = self._path(str(self._info["data_path"]), names)
                first, last = int(row["dataset_from_index"]), int(row["dataset_to_index"])
                # Rows are counted through the whole data set; the first episode of a file says where it starts.
                start = firsts.setdefault(table, first)
                video = None
                if self._in_video:
                    key = f"videos/{self._camera}"
                    names = {
                        "video_key": self._camera,
                        "chunk_index": row[f"{key}/chunk_index"],
                        "file_index": row[f"{key}/file_index"],
                    }
                    video = (self._path(str(self._info["video_path"]), names), float(row[f"{key}/from_timestamp"]))
                tasks = tuple(str(task) for task in row.get("tasks") or ())
                rows = (first - start, last - start)
                yield Entry(int(row["episode_index"]), int(row["length"]), table, rows, video, tasks)

    def _path(self, template: str, names: dict[str, Any]) -> Path:
        """A file by the data set's own template, inside its folder."""
        try:
            path = (self.folder / template.format(**names)).resolve()
        except (KeyError, ValueError, IndexError, AttributeError, TypeError, OverflowError, OSError) as error:
            raise StageError(f"{self.folder / INFO}: the path {template!r} cannot be filled in: {error}") from error
        if not path.is_relative_to(self.folder.resolve()):
            raise StageError(f"{self.folder / INFO}: the path {template!r} leads out of the data set.")
        return path

    def _skip(self, reason: str, where: str, detail: str) -> None:
        if where not in self._reported:
            self._reported.add(where)
            self._skips.add(reason, f"{self.name} {where}", detail)

    def _episode(self, entry: Entry) -> Episode:
        columns = [ACTION, TIME, TASK, *(() if self._in_video else (self._camera,))]
        columns += [self._state] if self._state not in (None, *columns) else []
        if not entry.table.is_file():
            raise BadEpisode("missing table", str(entry.table.relative_to(self.folder.resolve())))
        try:
            table = _table(entry.table, tuple(columns))
            rows = table if entry.rows is None else table.slice(entry.rows[0], entry.rows[1] - entry.rows[0])
        except (pa.ArrowException, OSError, IndexError, ValueError) as error:
            raise BadEpisode("broken table", f"{entry.table.name}: {str(error)[:200]}") from error
        except StageError as error:
            raise BadEpisode("broken table", str(error)[:200]) from error
        if len(rows) != entry.length:
            raise BadEpisode("uneven", f"{len(rows)} rows for an episode of {entry.length}")
        actions, times = _numbers(rows, ACTION, "bad actions"), _times(rows)
        if len(times) > 1 and not (np.diff(times) > 0).all():
            raise BadEpisode("time goes back", f"at row {int(np.argmin(np.diff(times) > 0)) + 1}")
        shape = (len(rows), *self._size)
        return Episode(
            id=f"{entry.number:06d}",
            task=self.name,
            instruction=self._instruction(entry, rows),
            frames=StoredFrames(shape, self._reader(entry, rows, times)),
            actions=actions,
            state=_numbers(rows, self._state, "bad state") if self._state is not None else None,
        )

    def _reader(self, entry: Entry, rows: pa.Table, times: NDArray[np.float64]) -> Any:
        if entry.video is not None:
            path, start = entry.video
            return functools.partial(_from_video, path, start, times, 0.5 / self._rate)
        return functools.partial(_from_table, rows[self._camera], self.folder.resolve())

    def _instruction(self, entry: Entry, rows: pa.Table) -> str:
        if entry.tasks and entry.tasks[0].strip():
            return entry.tasks[0].strip()
        number = rows[TASK][0].as_py() if TASK in rows.column_names and len(rows) else None
        return self._tasks.get(number, "").strip() if isinstance(number, int) else ""


def _size(feature: dict[str, Any]) -> tuple[int, ...]:
    """Height, width and 3, whatever order the data set keeps them in."""
    sizes, names = [int(n) for n in feature["shape"]], feature.get("names") or ()
    if sizes[0] == 3 and (not names or str(names[0]).startswith("c")):
        sizes = [*sizes[1:], 3]
    return tuple(sizes)


def _from_video(
    path: Path, start: float, times: NDArray[np.float64], tolerance: float, wanted: Sequence[int]
) -> NDArray[np.uint8]:
    return frames_at(path, [start + float(times[n]) for n in wanted], tolerance)


def _from_table(column: pa.ChunkedArray, folder: Path, wanted: Sequence[int]) -> NDArray[np.uint8]:
    found = []
    for n in wanted:
        value = column[n].as_py()
        data, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if data is None and name:
            try:
                path = (folder / str(name)).resolve()
                if not path.is_relative_to(folder) or not path.is_file():
                    raise BadEpisode("missing image", str(name))
                data = path.read_bytes()
            except (OSError, ValueError) as error:
                if isinstance(error, BadEpisode):
                    raise
                raise BadEpisode("missing image", f"{str(name)[:80]!r}: {error}") from error
        try:
            found.append(np.asarray(decode_image(data if isinstance(data, bytes) else b"")))
        except BadSample as error:
            raise BadEpisode("broken frame", str(error)) from error
    if len({frame.shape for frame in found}) > 1:
        raise BadEpisode("bad frames", "frames of several sizes in one episode")
    return np.stack(found)


def _numbers(rows: pa.Table, name: str, reason: str) -> NDArray[np.float32]:
    """[time, width] of a column of lists, or of plain numbers, as lerobot stores what is one wide."""
    values = rows[name].to_pylist() if name in rows.column_names else []
    values = [[value] if isinstance(value, (int, float)) else value for value in values]
    if not values or not all(isinstance(value, list) for value in values):
        raise BadEpisode(reason, f"no {name}")
    if len({len(value) for value in values}) > 1:
        raise BadEpisode(reason, "numbers of several widths in one episode")
    try:
        return np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise BadEpisode(reason, f"{name}: {str(error)[:200]}") from error


def _times(rows: pa.Table) -> NDArray[np.float64]:
    try:
        return np.asarray(rows[TIME].to_numpy(), np.float64)
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise BadEpisode("no time", str(error)[:200]) from error


@functools.lru_cache(maxsize=2)
def _cached(path: Path, columns: tuple[str, ...] | None, stamp: int) -> pa.Table:
    try:
        present = pq.read_schema(path).names
        return pq.read_table(path, columns=None if columns is None else [c for c in columns if c in present])
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StageError(f"{path} is damaged: {error}") from error


def _table(path: Path, columns: tuple[str, ...] | None) -> pa.Table:
    """A file of v3 holds many episodes: it is read once for all of them."""
    return _cached(path, columns, path.stat().st_mtime_ns)


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open() as file:
            for line in file:
                if line.strip():
                    yield json.loads(line)
    except (OSError, ValueError) as error:
        raise StageError(f"{path} is missing or damaged: {error}") from error


def _tasks(folder: Path) -> dict[int, str]:
    """Instructions by their number."""
    table = folder / "meta/tasks.parquet"
    if table.is_file():
        rows = _table(table, None).to_pylist()
        # The instruction is the index of a pandas table, with or without a name.
        named = next((k for k in rows[0] if k != TASK), "") if rows else ""
        return {int(row[TASK]): str(row[named]) for row in rows}
    lines = folder / "meta/tasks.jsonl"
    return {int(row[TASK]): str(row["task"]) for row in _json_lines(lines)} if lines.is_file() else {}


def _own_spec(info: dict[str, Any], folder: Path) -> ActionSpec | None:
    if not isinstance(info.get(SPEC), dict):
        return None
    try:
        return ActionSpec.from_json(info[SPEC])
    except (TypeError, ValueError) as error:
        raise StageError(f"{folder / INFO}: {SPEC} is no action spec: {error}") from error


def _unknown(features: dict[str, dict[str, Any]], rate: float) -> ActionSpec:
    names = features[ACTION].get("names") or []
    while isinstance(names, dict):
        names = next(iter(names.values()), [])
    return ActionSpec.unknown(int(features[ACTION]["shape"][0]), rate, [str(name) for name in names])


def _pick_camera(features: dict[str, dict[str, Any]], wanted: str | None, folder: Path) -> str:
    cameras = [name for name, feature in features.items() if feature.get("dtype") in ("video", "image")]
    for name in cameras:
        if wanted is None or wanted in (name, name.rpartition(".")[2]):
            return name
    raise StageError(
        f"{folder}: no camera {wanted or ''} among {', '.join(cameras) or 'nothing'}; choose with --camera."
    )
