"""`emt robots export`: any robot data as a LeRobot data set of version 3, which lerobot and its training tools open."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Skips, StageError, atomic_path, write_json
from embodied_midtrain.episodes import Episode, Frames, Robots
from embodied_midtrain.extras import require
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.robots.converted import ConvertedRobots
from embodied_midtrain.robots.lerobot import ACTION, INFO, SPEC, TASK, TIME
from embodied_midtrain.robots.opening import open_robots, read_spec

IMAGE = "observation.images.main"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
CHUNK = 1000
"""Files in one folder."""
PICTURES_LOOKED_AT = 8
"""Of an episode, for the statistics of its images."""


@dataclass(frozen=True)
class ExportConfig:
    """How robot data are written."""

    episodes_per_file: int = 50
    """In one table and one video."""
    rate: float | None = None
    """Frames a second; by default the data's own."""
    codec: Literal["h264", "hevc", "libsvtav1"] = "h264"
    """Of the videos."""
    quality: int = 18
    """Constant rate factor of the codec: lower is better and larger."""


@dataclass
class _Totals:
    episodes: list[dict[str, Any]] = field(default_factory=list)
    tasks: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    stats: list[dict[str, dict[str, Any]]] = field(default_factory=list)


def export_lerobot(robots: Robots, out: Path, config: ExportConfig | None = None) -> dict[str, int]:
    """Write all episodes into the new folder `out`; it appears only when it is whole.

    Returns:
        how many episodes, frames and tasks it holds.

    Raises:
        StageError: where `out` is there already, where the rate is not known, or frames differ in size.
    """
    config = config or ExportConfig()
    rate = config.rate or robots.spec.rate
    if out.exists():
        raise StageError(f"{out} is there already; give a new folder.")
    if rate <= 0:
        raise StageError(f"{robots.name} does not say how many frames a second it has; give --rate.")
    totals = _Totals()
    with atomic_path(out) as folder, progress_bar(f"export {robots.name}", None) as bar:
        size: tuple[int, ...] | None = None
        for number, part in enumerate(_parts(robots, config.episodes_per_file)):
            for episode in part:
                size = size or tuple(episode.frames.shape[1:])
                if tuple(episode.frames.shape[1:]) != size:
                    raise StageError(f"{episode.id} has frames of {episode.frames.shape[1:]}, others of {size}.")
            _write_part(folder, number, part, totals, robots, config, rate)
            bar.advance(len(part))
        assert size is not None
        _write_meta(folder, totals, robots, config, rate, size)
    return {"episodes": len(totals.episodes), "frames": totals.frames, "tasks": len(totals.tasks)}


def _parts(robots: Robots, size: int) -> Iterator[list[Episode]]:
    part: list[Episode] = []
    for episode in robots:
        part.append(episode)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _write_part(
    folder: Path, number: int, part: list[Episode], totals: _Totals, robots: Robots, config: ExportConfig, rate: float
) -> None:
    names = {"chunk_index": number // CHUNK, "file_index": number % CHUNK, "video_key": IMAGE}
    columns: dict[str, list[Any]] = {name: [] for name in (ACTION, TIME, "frame_index", "episode_index", "index", TASK)}
    shown = 0
    for episode in part:
        length, index = len(episode.actions), len(totals.episodes)
        task = totals.tasks.setdefault(episode.instruction, len(totals.tasks))
        rows: dict[str, NDArray[Any]] = {
            ACTION: episode.actions,
            TIME: (np.arange(length) / rate).astype(np.float32),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, index),
            "index": np.arange(totals.frames, totals.frames + length),
            TASK: np.full(length, task),
        }
        for name, values in rows.items():
            columns[name] += list(values) if name == ACTION else values.tolist()
        stats = {name: _stats(values) for name, values in rows.items()} | {IMAGE: _picture_stats(episode.frames)}
        totals.stats.append(stats)
        totals.episodes.append(
            {
                "episode_index": index,
                "tasks": [episode.instruction],
                "length": length,
                "data/chunk_index": names["chunk_index"],
                "data/file_index": names["file_index"],
                "dataset_from_index": totals.frames,
                "dataset_to_index": totals.frames + length,
                f"videos/{IMAGE}/chunk_index": names["chunk_index"],
                f"videos/{IMAGE}/file_index": names["file_index"],
                f"videos/{IMAGE}/from_timestamp": shown / rate,
                f"videos/{IMAGE}/to_timestamp": (shown + length) / rate,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
                **{f"stats/{name}/{kind}": v for name, found in stats.items() for kind, v in found.items()},
            }
        )
        totals.frames += length
        shown += length
    width = robots.spec.width
    flat = np.concatenate([np.asarray(row, np.float32).reshape(-1) for row in columns[ACTION]])
    numbers = pa.array(flat, pa.float32())
    # lerobot wants what is one wide as plain numbers.
    table = {ACTION: numbers if width == 1 else pa.FixedSizeListArray.from_arrays(numbers, width)}
    table[TIME] = pa.array(columns[TIME], pa.float32())
    table |= {name: pa.array(values, pa.int64()) for name, values in columns.items() if name not in (ACTION, TIME)}
    path = folder / DATA.format(**names)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path, compression="snappy")
    video = folder / VIDEO.format(**names)
    video.parent.mkdir(parents=True, exist_ok=True)
    _write_video(video, part, config, rate)


def _write_video(path: Path, part: Sequence[Episode], config: ExportConfig, rate: float) -> None:
    av = require("av", "data")
    height, width, _ = part[0].frames.shape[1:]
    with av.open(str(path), "w") as container:
        # A key frame every second frame, as lerobot has it: any frame is then quickly reached.
        stream = container.add_stream(config.codec, rate=Fraction(rate).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width - width % 2, height - height % 2, "yuv420p"
        stream.options = {"crf": str(config.quality), "g": "2"}
        for episode in part:
            for n in range(len(episode.frames)):
                frame = np.ascontiguousarray(episode.frames[n][: stream.height, : stream.width])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _stats(values: NDArray[Any]) -> dict[str, Any]:
    rows = np.asarray(values, np.float64).reshape(len(values), -1)
    found = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    return {**{kind: v.tolist() for kind, v in found.items()}, "count": [len(rows)]}


def _picture_stats(frames: Frames) -> dict[str, Any]:
    """Per colour, of some of the frames, in [0, 1] and of the shape [3, 1, 1] that lerobot expects."""
    index = np.unique(np.linspace(0, len(frames) - 1, PICTURES_LOOKED_AT).round().astype(int))
    rows = np.asarray(frames[index], np.float64).reshape(-1, 3) / 255.0
    found = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    return {**{kind: v.reshape(3, 1, 1).tolist() for kind, v in found.items()}, "count": [len(index)]}


def _together(stats: list[dict[str, Any]]) -> dict[str, Any]:
    """Statistics of all episodes from those of each."""
    counts = np.array([s["count"][0] for s in stats], np.float64)
    shape = (-1, *[1] * np.ndim(stats[0]["mean"]))
    weights = (counts / counts.sum()).reshape(shape)
    means, stds = (np.array([s[kind] for s in stats]) for kind in ("mean", "std"))
    mean = (weights * means).sum(0)
    spread = (weights * (stds**2 + (means - mean) ** 2)).sum(0)
    return {
        "min": np.min([s["min"] for s in stats], 0).tolist(),
        "max": np.max([s["max"] for s in stats], 0).tolist(),
        "mean": mean.tolist(),
        "std": np.sqrt(spread).tolist(),
        "count": [int(counts.sum())],
    }


def _write_meta(
    folder: Path, totals: _Totals, robots: Robots, config: ExportConfig, rate: float, size: tuple[int, ...]
) -> None:
    path = folder / EPISODES.format(chunk_index=0, file_index=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(totals.episodes), path)
    tasks = pa.table({TASK: list(totals.tasks.values()), "task": list(totals.tasks)})
    # lerobot reads this table with pandas and finds a task's number by the index.
    about = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for name, kind, numpy in ((TASK, "int64", "int64"), ("task", "unicode", "object"))
        ],
        "pandas_version": "2.0.0",
    }
    pq.write_table(tasks.replace_schema_metadata({"pandas": json.dumps(about)}), folder / "meta/tasks.parquet")
    write_json(
        folder / "meta/stats.json", {name: _together([s[name] for s in totals.stats]) for name in totals.stats[0]}
    )
    height, width = size[0] - size[0] % 2, size[1] - size[1] % 2

    def plain(kind: str) -> dict[str, Any]:
        return {"dtype": kind, "shape": [1], "names": None}

    write_json(
        folder / INFO,
        {
            "codebase_version": "v3.0",
            "robot_type": robots.name,
            "total_episodes": len(totals.episodes),
            "total_frames": totals.frames,
            "total_tasks": len(totals.tasks),
            "chunks_size": CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 500,
            "fps": int(rate) if float(rate).is_integer() else rate,
            "splits": {"train": f"0:{len(totals.episodes)}"},
            "data_path": DATA,
            "video_path": VIDEO,
            SPEC: robots.spec.to_json(),
            "features": {
                ACTION: {"dtype": "float32", "shape": [robots.spec.width], "names": list(robots.spec.names)},
                IMAGE: {
                    "dtype": "video",
                    "shape": [height, width, 3],
                    "names": ["height", "width", "channels"],
                    "info": {
                        "video.fps": rate,
                        "video.height": height,
                        "video.width": width,
                        "video.channels": 3,
                        "video.codec": config.codec,
                        "video.pix_fmt": "yuv420p",
                        "video.is_depth_map": False,
                        "has_audio": False,
                    },
                },
                TIME: plain("float32"),
                **{name: plain("int64") for name in ("frame_index", "episode_index", "index", TASK)},
            },
        },
    )


def export_command(
    data: Path,
    out: Path,
    config: ExportConfig = ExportConfig(),
    camera: str | None = None,
    action_spec: Path | None = None,
    state: str | None = None,
    state_spec: Path | None = None,
) -> None:
    """Write robot data as a LeRobot data set (version 3), with their actions in another convention if wanted.

    Examples:
        emt robots export --data runs/quickstart/demos --out runs/quickstart-lerobot
        emt robots export --data bridge_rlds/1.0.0 --out bridge-lerobot --rate 5
        emt robots export --data bridge_rlds/1.0.0 --out bridge-absolute --action-spec absolute.json \\
            --state state --state-spec bridge-state.json

    Args:
        data: robot data of any kind that is read: 'emt demos', HDF5, RLDS, CALVIN, LeRobot.
        out: a new folder.
        camera: which pictures to take where the data hold several.
        action_spec: a JSON file (fields of ActionSpec) with the convention in which actions are written.
        state: the data's name for what the robot measured, where the conversion needs it.
        state_spec: a JSON file (fields of ActionSpec) that says what the numbers of the state mean.
    """
    skips = Skips()
    robots = open_robots(data, skips, camera=camera, state=state)
    if action_spec is not None:
        known = read_spec(state_spec) if state_spec is not None else None
        robots = ConvertedRobots(robots, read_spec(action_spec), skips, state_spec=known)
    made = export_lerobot(robots, out, config)
    print(f"{out}: {', '.join(f'{count} {what}' for what, count in made.items())}; skipped: {skips.summary()}")
