"""Frames as a small H.264 file that browsers play."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.extras import require

SAME_BYTES = {"threads": "1", "x264-params": "asm=0"}
"""Settings of x264 by which the same frames give the same bytes. With several threads these depend on the number of
cores; in its vector code, and where it converts colours itself, now and then on what memory held before."""


def write_mp4(path: Path, frames: Sequence[NDArray[np.uint8]], rate: float) -> None:
    """Write frames [height, width, 3] at `rate` a second; odd sizes lose their last row or column.

    Raises:
        StageError: where PyAV is missing.
        ValueError: without frames.
    """
    if not frames:
        raise ValueError("a video needs at least one frame")
    av = require("av", "data")
    height, width = (n - n % 2 for n in frames[0].shape[:2])
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "24", "preset": "veryfast", **SAME_BYTES}
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(picture.reformat(format="yuv420p")))
        container.mux(stream.encode())
