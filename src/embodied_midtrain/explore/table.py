"""One row for each point: where it is, what it says, a small picture, its score and rank, whether it was chosen."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from embodied_midtrain.artifacts import Artifact, Skips
from embodied_midtrain.episodes import Robots
from embodied_midtrain.explore.points import Key, Points
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.samples import BadSample, Sample

SCHEMA = pa.schema(
    [
        # In the order in which the page shows them; the page knows a picture by the ending of its path.
        ("picture", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("text", pa.string()),
        ("kept", pa.string()),
        ("score", pa.float32()),
        ("rank", pa.int64()),
        ("source", pa.string()),
        ("id", pa.string()),
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("row", pa.int64()),
    ]
)
KEPT, LEFT, TARGET = "selected", "not selected", "robot"
"""What the column `kept` says."""
_LONGEST = 1000
"""Characters of a text."""


def make_table(
    points: Points,
    samples: Iterator[Sample],
    scored: Mapping[Key, tuple[float, int]],
    selected: frozenset[Key],
    robots: Robots | None,
    *,
    side: int,
    skips: Skips,
) -> pa.Table:
    """The rows of all points.

    Args:
        samples: of `points.pool`, in that order.
        scored: score and rank of samples.
        side: the longest side of a picture, pixels.
        skips: pictures that cannot be shown are added here; their rows stay.
    """
    rows: list[dict[str, Any]] = []
    with progress_bar("pictures", len(points.pool)) as bar:
        for sample in samples:
            score, rank = scored.get(sample.key, (None, None))
            picture = None
            try:
                picture = small(sample.pictures[0].decode(), side) if sample.pictures else None
            except BadSample as error:
                skips.add(error.reason, "/".join(sample.key), error.detail)
            kept = KEPT if sample.key in selected else LEFT
            rows.append(_row(sample.key, kept, said(sample), picture) | {"score": score, "rank": rank})
            bar.advance()
    shown = frames_of(robots, points.target, side) if robots is not None else {}
    for key in points.target:
        text, picture = shown.get(key, ("", None))
        rows.append(_row(key, TARGET, text, picture))
    for number, (row, (x, y)) in enumerate(zip(rows, points.places.tolist(), strict=True)):
        row |= {"row": number, "x": x, "y": y}
    return pa.Table.from_pylist(rows, SCHEMA)


def _row(key: Key, kept: str, text: str, picture: bytes | None) -> dict[str, Any]:
    return {
        "kept": kept,
        "source": key[0],
        "id": key[1],
        "text": text,
        "picture": picture and {"bytes": picture, "path": "0.jpg"},
    }


def said(sample: Sample) -> str:
    """The conversation in some lines, places in per cent."""

    def percent(values: Sequence[float]) -> str:
        return "(" + ", ".join(f"{value:.0%}" for value in values) + ")"

    text = "\n".join(turn.written(lambda region: percent(region.values)) for turn in sample.turns)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def small(image: Image.Image, side: int) -> bytes:
    """A JPEG of at most `side` pixels."""
    image = image.convert("RGB")
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def frames_of(robots: Robots, keys: Sequence[Key], side: int) -> dict[Key, tuple[str, bytes]]:
    """Instruction and picture of frames, by the names that `emt embed --target` gives them (task, episode/frame)."""
    wanted: dict[Key, list[int]] = {}
    for task, id in keys:
        name, _, index = id.rpartition("/")
        wanted.setdefault((task, name), []).append(int(index))
    found: dict[Key, tuple[str, bytes]] = {}
    for episode in robots:
        numbers = [n for n in wanted.get((episode.task, episode.id), ()) if n < len(episode.frames)]
        if not numbers:
            continue
        # All of an episode at once: a video is decoded from a key frame on.
        for number, frame in zip(numbers, episode.frames[np.array(numbers)], strict=True):
            name = f"{episode.id}/{number:04d}"
            found[episode.task, name] = (episode.instruction, small(Image.fromarray(frame), side))
    return found


def scores_of(selection: Artifact, keys: Sequence[Key]) -> dict[Key, tuple[float, int]]:
    """Score and rank of some samples out of a selection's `scores.parquet`, which is read in pieces."""
    wanted = frozenset(keys)
    found: dict[Key, tuple[float, int]] = {}
    for batch in pq.ParquetFile(selection.file("scores.parquet")).iter_batches():
        table = batch.to_pydict()
        for source, id, score, rank in zip(*(table[c] for c in ("source", "id", "score", "rank")), strict=True):
            if (source, id) in wanted:
                found[source, id] = (score, rank)
    return found
