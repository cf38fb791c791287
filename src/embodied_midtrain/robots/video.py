"""Frames of a video by their exact time, decoded by PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.episodes import BadEpisode
from embodied_midtrain.extras import require


def frames_at(path: Path, times: Sequence[float], tolerance: float) -> NDArray[np.uint8]:
    """The frames shown at these times: [len(times), height, width, 3].

    Each is the one whose time stamp is nearest, and must be no further away than `tolerance`: an index that is off by
    one is an error, never a neighbour.

    Args:
        times: seconds from the start of the video, in any order.

    Raises:
        BadEpisode: "missing video", "broken video", "video too short", or "no frame at this time".
    """
    av = require("av", "data")
    if not path.is_file():
        raise BadEpisode("missing video", str(path))
    order = sorted(range(len(times)), key=lambda n: times[n])
    found: dict[int, NDArray[np.uint8]] = {}
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise BadEpisode("broken video", f"{path.name} has no pictures")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            _collect(container, stream, [(n, times[n]) for n in order], tolerance, path, found)
    except (av.error.FFmpegError, OSError, ValueError, ArithmeticError) as error:
        # Arithmetic: a time that is infinite, or in units of nothing.
        if isinstance(error, BadEpisode):
            raise
        raise BadEpisode("broken video", f"{path.name}: {error}") from error
    return np.stack([found[n] for n in range(len(times))])


def _collect(
    container: Any,
    stream: Any,
    wanted: list[tuple[int, float]],
    tolerance: float,
    path: Path,
    found: dict[int, NDArray[np.uint8]],
) -> None:
    """Go through the video once, jumping where the next wanted frame is far off."""
    base = stream.time_base or Fraction(1, 1)
    frames = _from(container, stream, wanted[0][1], base)
    before: Any = None
    now: Any = next(frames, None)
    for number, time in wanted:
        if now is not None and time - float(now.pts * base) > _FAR:
            frames = _from(container, stream, time, base)
            before, now = None, next(frames, None)
        while now is not None and float(now.pts * base) < time:
            before, now = now, next(frames, None)
        around = [frame for frame in (before, now) if frame is not None]
        near: Any = min(around, key=lambda f: abs(float(f.pts * base) - time), default=None)
        if near is None or abs(float(near.pts * base) - time) > tolerance:
            if now is None:
                end = float(before.pts * base) if before is not None else 0.0
                raise BadEpisode("video too short", f"{path.name} ends at {end:.3f} s, wanted {time:.3f} s")
            raise BadEpisode(
                "no frame at this time", f"{path.name}: nearest to {time:.4f} s is {float(near.pts * base):.4f} s"
            )
        found[number] = near.to_ndarray(format="rgb24")


_FAR = 2.0
"""Seconds from which on a jump to the key frame before is quicker than decoding on."""


def _from(container: Any, stream: Any, time: float, base: Fraction) -> Any:
    """Decoded frames from the key frame before `time` on."""
    container.seek(max(0, int(time / base) - 1), stream=stream, backward=True, any_frame=False)
    return (frame for frame in container.decode(stream) if frame.pts is not None)
