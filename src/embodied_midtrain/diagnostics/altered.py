"""What the ranking follows: scores of a few samples once their words, or their pictures, are made alike.

A probe says what could tell pool and target apart; it does not say what the estimator looks at. So the samples are
embedded again with one thing changed, and ranked again by the same estimator: where the order stays, that thing was
not what it followed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.backbones.precision import quick_inference
from embodied_midtrain.features.extractor import EmbedConfig, encode
from embodied_midtrain.features.sharing import share_vision
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.samples import BadSample, Picture, Sample

Size = tuple[int, int]
AT_ONCE = 64
GREY = (128, 128, 128)


@dataclass(frozen=True)
class Frame:
    """A robot frame that was drawn.

    Attributes:
        picture: uint8 [height, width, 3].
        prompt: the user text that goes with it.
        episode: "task/episode".
    """

    picture: NDArray[np.uint8]
    prompt: str
    episode: str


@dataclass(frozen=True)
class Seen:
    """Features of samples whose pictures could be used, in their order.

    Attributes:
        rows: places of these samples among those that were given [n].
        sized: with pictures of the frames' size [n, dim].
        worded: with one robot prompt in place of their words [n, dim].
        blank: with a grey picture in place of theirs [n, dim].
        pictures: of the image tokens alone, all under one prompt and of the frames' size [n, dim].
        frames: of the frames' image tokens, under the same prompt [m, dim].
    """

    rows: NDArray[np.int64]
    sized: NDArray[np.float32]
    worded: NDArray[np.float32]
    blank: NDArray[np.float32]
    pictures: NDArray[np.float32]
    frames: NDArray[np.float32]


def look(
    backbone: Backbone, samples: Sequence[Sample], frames: Sequence[Frame], config: EmbedConfig, *, workers: int = 2
) -> Seen:
    """Embed samples, altered, and frames.

    Args:
        config: how the features that the estimator was fitted to were made.

    Raises:
        BadSample: where a frame cannot be rendered.
    """
    size = frames[0].picture.shape[1], frames[0].picture.shape[0]
    prompt = frames[0].prompt
    only_image = replace(config, pooling="image")
    kept: list[int] = []
    found: list[list[NDArray[np.float16]]] = [[] for _ in range(4)]
    quick = quick_inference(backbone.base, backbone.device, config.precision)
    with quick, ThreadPoolExecutor(workers) as threads, progress_bar("look again", len(samples) + len(frames)) as bar:
        for at in range(0, len(samples), AT_ONCE):
            some = samples[at : at + AT_ONCE]
            ready = list(threads.map(lambda s: _attempt(lambda: _altered(backbone, s, size, prompt)), some))
            usable = [(at + n, rows) for n, rows in enumerate(ready) if rows is not None]
            kept += [n for n, _ in usable]
            if usable:
                sized, blank, worded, worded_sized = (
                    share_vision(backbone, [rows[part] for _, rows in usable], config.batch_size) for part in range(4)
                )
                batches = ((sized, config), (worded, config), (blank, config), (worded_sized, only_image))
                for own, (rows, how) in zip(found, batches, strict=True):
                    own.append(encode(backbone, rows, how))
            bar.advance(len(some))
        robot = []
        for at in range(0, len(frames), AT_ONCE):
            shown = frames[at : at + AT_ONCE]
            robot.append(encode(backbone, [backbone.prompt(f.picture, prompt) for f in shown], only_image))
            bar.advance(len(shown))
    dim = backbone.hidden * len(config.read)
    joined = [_joined(own, dim) for own in (*found, robot)]
    return Seen(np.array(kept, np.int64), *joined)


def _attempt(make: Callable[[], list[Rendered]]) -> list[Rendered] | None:
    try:
        return make()
    except BadSample:
        # It was embedded once; altered, it may be too long. A few less do not matter to a correlation.
        return None


def _altered(backbone: Backbone, sample: Sample, size: Size, prompt: str) -> list[Rendered]:
    """Sized, blank, worded, worded and sized.

    Raises:
        BadSample: without a picture, and as rendering does.
    """
    if not sample.pictures:
        raise BadSample("no picture")
    decoded = [picture.decode() for picture in sample.pictures]
    resized = [picture.resize(size, Image.Resampling.BICUBIC) for picture in decoded]
    plain = [Image.new("RGB", picture.size, GREY) for picture in decoded]
    return [
        backbone.render(_with(sample, resized)),
        backbone.render(_with(sample, plain)),
        backbone.prompt(decoded[0], prompt),
        backbone.prompt(resized[0], prompt),
    ]


def _with(sample: Sample, pictures: Sequence[Image.Image]) -> Sample:
    return replace(sample, pictures=tuple(Picture(data=_encoded(picture)) for picture in pictures))


def _encoded(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "BMP")
    return data.getvalue()


def _joined(parts: list[NDArray[np.float16]], dim: int) -> NDArray[np.float32]:
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, dim), np.float32)
