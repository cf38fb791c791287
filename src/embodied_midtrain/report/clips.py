"""Rollout videos, small enough to live inside the page."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.benchmarks.video import SAME_BYTES
from embodied_midtrain.extras import require
from embodied_midtrain.report.gallery import data_uri
from embodied_midtrain.report.summary import Video
from embodied_midtrain.report.tables import Unreadable, run_file

LONGEST_SIDE = 256
"""Pixels; policies here see 128 or 224."""
FRAMES_A_SECOND = 20
MOST_SECONDS = 20
"""A longer rollout is played faster, not cut: its end is what shows success."""


@dataclass(frozen=True, slots=True)
class Clip:
    video: Video
    uri: str
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Clips:
    """What is shown, how many rollouts were recorded in all, and what could not be shown, in words."""

    shown: tuple[Clip, ...]
    recorded: int
    problems: tuple[str, ...]


def clips(run: Path, videos: Sequence[Video], *, most_bytes: int) -> Clips:
    """One success and one failure of each variant and task as far as `most_bytes` reach, in a fair order."""
    shown: list[Clip] = []
    problems: list[str] = []
    left = most_bytes
    for video in fair_order(videos):
        try:
            data, size = small_mp4(run_file(run, video.path))
        except (Unreadable, StageError) as error:
            problems.append(str(error))
            continue
        if len(data) > left:
            problems.append(f"{video.path} and those after it are left out: the page would grow too large")
            break
        left -= len(data)
        shown.append(Clip(video, data_uri("video/mp4", data), size))
    return Clips(tuple(shown), len(videos), tuple(problems))


def fair_order(videos: Sequence[Video]) -> list[Video]:
    """The first success of each (variant, task), then the first failure of each; the rest is not shown."""
    first: dict[tuple[bool, str, str], Video] = {}
    for video in videos:
        first.setdefault((video.success, video.variant, video.task), video)
    return [v for v in first.values() if v.success] + [v for v in first.values() if not v.success]


def small_mp4(path: Path) -> tuple[bytes, tuple[int, int]]:
    """The video encoded again as H.264 that every browser plays, at most LONGEST_SIDE; and its (width, height).

    Raises:
        Unreadable: where it is no video.
        StageError: where PyAV is not installed.
    """
    av = require("av", "data")
    try:
        with av.open(str(path)) as source:
            frames = _kept(source, _length(source, path))
            return _encode(av, frames)
    except (av.FFmpegError, IndexError) as error:
        raise Unreadable(f"{path.name} is not a readable video ({error})") from error


def _length(source: Any, path: Path) -> int:
    """Frames of the video; decoded once to count them where the container does not say."""
    count = source.streams.video[0].frames
    if not count:
        count = sum(1 for _ in source.decode(video=0))
        source.seek(0)
    if not count:
        raise Unreadable(f"{path.name} holds no frames")
    return int(count)


def _kept(source: Any, count: int) -> Iterator[Any]:
    """Every so many frames, and always the last."""
    every = math.ceil(count / (MOST_SECONDS * FRAMES_A_SECOND))
    last = None
    for index, frame in enumerate(source.decode(video=0)):
        last = None if index % every == 0 else frame
        if last is None:
            yield frame
    if last is not None:
        yield last


def _encode(av: Any, frames: Iterator[Any]) -> tuple[bytes, tuple[int, int]]:
    first = next(frames)
    scale = min(1.0, LONGEST_SIDE / max(first.width, first.height))
    # H.264 with halved colour planes wants even sides.
    width, height = (max(2, 2 * round(side * scale / 2)) for side in (first.width, first.height))
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=FRAMES_A_SECOND)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "30", "preset": "medium", **SAME_BYTES}
        for index, frame in enumerate(chain([first], frames)):
            small = frame.reformat(width=width, height=height, format="yuv420p")
            small.time_base, small.pts = Fraction(1, FRAMES_A_SECOND), index
            out.mux(stream.encode(small))
        out.mux(stream.encode(None))
    return data.getvalue(), (width, height)
