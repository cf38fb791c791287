"""The samples that the estimator puts first and last, with what a reader needs to judge them by eye."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from PIL import Image

from embodied_midtrain.report.tables import Key, Scores
from embodied_midtrain.samples import REGION_MARK, BadSample, Region, Sample, Turn

Reader = Callable[[list[Key]], Mapping[Key, Sample]]
"""Reads samples of the pool by key; a sample that is not there is left out."""

TEXT_LIMIT = 600
"""Characters of a turn that a card shows; document pages are far longer."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A region drawn over the image; per cent of its width and height. A point has no extent."""

    left: float
    top: float
    width: float
    height: float
    kind: str


@dataclass(frozen=True, slots=True)
class Card:
    """One sample. `image` is a data URI, empty where there is none; `problem` says why it is not."""

    key: Key
    score: float
    percentile: float
    image: str
    size: tuple[int, int]
    marks: tuple[Mark, ...]
    turns: tuple[tuple[str, str], ...]
    problem: str


@dataclass(frozen=True, slots=True)
class Shelf:
    """The closest and the farthest samples of one source, or of the whole pool (`source` empty)."""

    source: str
    closest: tuple[Card, ...]
    farthest: tuple[Card, ...]


def shelves(scores: Scores, read: Reader, *, overall: int, per_source: int, side: int) -> tuple[Shelf, ...]:
    """Cards for the ends of the whole ranking and of each source's own.

    Args:
        overall, per_source: samples at each end.
        side: the longest side of an image, pixels.
    """
    wanted = {"": _ends(list(range(len(scores.keys))), overall)}
    wanted |= {name: _ends(indices, per_source) for name, indices in sorted(scores.by_source.items())}
    chosen = {index for ends in wanted.values() for end in ends for index in end}
    samples = read([scores.keys[i] for i in sorted(chosen)])
    cards = {i: _card(scores, i, samples.get(scores.keys[i]), side) for i in chosen}
    return tuple(
        Shelf(name, tuple(cards[i] for i in first), tuple(cards[i] for i in last))
        for name, (first, last) in wanted.items()
    )


def _ends(indices: list[int], count: int) -> tuple[list[int], list[int]]:
    """The first and the last of a ranking, never the same sample twice; the last begin with the very last."""
    count = min(count, max(1, len(indices) // 2))
    return indices[:count], list(reversed(indices[count:][-count:]))


def _card(scores: Scores, index: int, sample: Sample | None, side: int) -> Card:
    key, score, percentile = scores.keys[index], float(scores.scores[index]), float(scores.percentile[index])
    if sample is None:
        return Card(key, score, percentile, "", (4, 3), (), (), "not found in the pool")
    turns = tuple((turn.role, readable(turn)) for turn in sample.turns)
    marks = tuple(_mark(region) for turn in sample.turns for region in turn.regions)
    if not sample.pictures:
        return Card(key, score, percentile, "", (4, 3), (), turns, "text only")
    try:
        image, size = thumbnail(sample.pictures[0].decode(), side)
    except BadSample as error:
        return Card(key, score, percentile, "", (4, 3), (), turns, str(error))
    return Card(key, score, percentile, image, size, marks if len(sample.pictures) == 1 else (), turns, "")


def readable(turn: Turn) -> str:
    """A turn's text with its regions written out in per cent, cut at a readable length."""
    text = turn.text
    for region in turn.regions:
        values = ", ".join(f"{100 * v:.0f} %" for v in region.values)
        text = text.replace(REGION_MARK, f"({values})", 1)
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1].rstrip() + "…"


def thumbnail(image: Image.Image, side: int) -> tuple[str, tuple[int, int]]:
    """A small WebP as a data URI, and its (width, height)."""
    image = image.copy()
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "WEBP", quality=72, method=4)
    return data_uri("image/webp", data.getvalue()), image.size


def data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _mark(region: Region) -> Mark:
    x, y, *far = (100 * v for v in region.values)
    width, height = (far[0] - x, far[1] - y) if far else (0.0, 0.0)
    return Mark(min(x, x + width), min(y, y + height), abs(width), abs(height), region.kind)


def by_key(samples: Iterable[Sample]) -> dict[Key, Sample]:
    return {sample.key: sample for sample in samples}
