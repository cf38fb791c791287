"""What a sample shows beside its scene: words, their length, the size of its pictures, as features for a probe.

Tokens are hashed into a fixed number of places: no vocabulary is fitted, and nothing of a fold is known to another.
"""

from __future__ import annotations

import itertools
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.samples import Sample
from embodied_midtrain.sources.pictures import look

PLACES = 2048
"""Of hashed tokens."""
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Traits:
    """Of one sample or frame.

    Attributes:
        text: all that is said, by both sides.
        sizes: width and height of each picture, pixels.
    """

    text: str
    sizes: tuple[tuple[int, int], ...]


def traits_of(sample: Sample) -> Traits:
    """Texts, and the sizes that the pictures' headers say; nothing is decoded.

    Raises:
        BadSample: where a picture cannot be read, or is none.
    """
    sizes = tuple(look(picture.read(), decode=False)[0] for picture in sample.pictures)
    return Traits("\n".join(turn.text for turn in sample.turns), sizes)


def words(rows: Sequence[Traits]) -> NDArray[np.float32]:
    """Which words, pairs of words and runs of four letters a text holds: [n, PLACES], rows of unit length."""
    return _hashed(_word_tokens(row.text) for row in rows)


def lengths(rows: Sequence[Traits]) -> NDArray[np.float32]:
    """The text's length in letters and words, each in steps of a fifth: [n, PLACES]."""
    return _hashed(
        (f"letters {_step(len(row.text), 4)}", f"words {_step(len(_WORD.findall(row.text)), 4)}") for row in rows
    )


def sizes(rows: Sequence[Traits]) -> NDArray[np.float32]:
    """Width, height, both, shape and area of the pictures, each value for itself: [n, PLACES]."""
    return _hashed(_size_tokens(row.sizes) for row in rows)


def _word_tokens(text: str) -> Iterator[str]:
    found = _WORD.findall(text.lower())
    yield from found
    yield from (f"{a} {b}" for a, b in itertools.pairwise(found))
    flat = " ".join(found)
    yield from (f"#{flat[n : n + 4]}" for n in range(len(flat) - 3))


def _size_tokens(pictures: tuple[tuple[int, int], ...]) -> Iterator[str]:
    yield f"count {len(pictures)}"
    for width, height in pictures:
        yield f"width {width}"
        yield f"height {height}"
        yield f"{width} x {height}"
        yield f"shape {round(8 * math.log2(max(1, width) / max(1, height)))}"
        yield f"area {_step(width * height, 2)}"


def _step(value: int, steps: int) -> int:
    """On a logarithmic scale, `steps` to a doubling."""
    return round(steps * math.log2(1 + value))


def _hashed(rows: Iterable[Iterable[str]]) -> NDArray[np.float32]:
    found = []
    for tokens in rows:
        row = np.zeros(PLACES, np.float32)
        row[[zlib.crc32(token.encode()) % PLACES for token in set(tokens)]] = 1.0
        found.append(row / max(1.0, float(np.linalg.norm(row))))
    return np.stack(found) if found else np.zeros((0, PLACES), np.float32)
