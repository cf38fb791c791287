"""FAST: a chunk of actions as a few tokens (arXiv 2501.09747).

Normalised actions, cut off at +-1; an orthonormal cosine transform (DCT-II) over time of each dimension; coefficients
times a scale, rounded; laid out by frequency, all dimensions of the lowest one first; a byte-pair encoding on top,
learned from the data, that makes common runs of coefficients into tokens.

Actions within +-1 have coefficients within +-sqrt(chunk): a known, small alphabet, one symbol a coefficient. All of it
is in the vocabulary from the start, so that any chunk of any data can be encoded, and what is decoded is within the
quantisation of what was encoded: half a unit of the scale in every coefficient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, trainers

from embodied_midtrain.artifacts import StageError, read_json, write_json

FILE = "fast.json"
FIRST = 0x4E00
"""Code point of the lowest coefficient's symbol: plain letters, which nothing splits or changes."""
SAMPLE = 100_000
"""Chunks that an encoding is learned from, at most, evenly over the data."""


@dataclass(frozen=True, kw_only=True)
class FastConfig:
    """FAST action tokens: the fast head's, and those of knowledge insulation."""

    fast_vocabulary: int = 1024
    """Action tokens: the alphabet of coefficients, and the runs learned from the data."""
    fast_scale: float = 10.0
    """Units of a coefficient that rounding distinguishes: larger is finer and longer."""

    def check(self, chunk: int) -> None:
        """Raise `ValueError` on settings that cannot be meant."""
        if not 0 < self.fast_scale <= 1000:
            raise ValueError(f"fast_scale is {self.fast_scale}; wanted above 0, at most 1000")
        if (symbols := 2 * highest(chunk, self.fast_scale) + 1) > self.fast_vocabulary:
            raise ValueError(
                f"fast_vocabulary is {self.fast_vocabulary}, but a chunk of {chunk} at scale {self.fast_scale} has "
                f"{symbols} different coefficients; give at least as many tokens"
            )


def highest(chunk: int, scale: float) -> int:
    """The largest rounded coefficient that actions within +-1 can have."""
    return math.floor(scale * math.sqrt(chunk) + 0.5)


@dataclass(frozen=True)
class FastTokenizer:
    """Chunks [chunk, width] within +-1 to token numbers below `size`, and back."""

    chunk: int
    width: int
    scale: float
    encoding: Tokenizer

    @classmethod
    def fit(cls, chunks: NDArray[np.float32], config: FastConfig) -> FastTokenizer:
        """From normalised chunks [n, chunk, width]. The same data give the same tokens.

        Raises:
            ValueError: where there are none, or settings cannot be meant.
        """
        if chunks.ndim != 3 or not len(chunks):
            raise ValueError(f"chunks of shape {chunks.shape}: wanted at least one, [n, chunk, width]")
        _, chunk, width = chunks.shape
        config.check(chunk)
        top = highest(chunk, config.fast_scale)
        alphabet = [chr(FIRST + n) for n in range(2 * top + 1)]
        encoding = Tokenizer(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=config.fast_vocabulary,
            min_frequency=2,
            show_progress=False,
            special_tokens=[],
            initial_alphabet=alphabet,
        )
        made = cls(chunk, width, config.fast_scale, encoding)
        taken = chunks[np.unique(np.linspace(0, len(chunks) - 1, min(len(chunks), SAMPLE)).astype(int))]
        encoding.train_from_iterator((made._text(one) for one in taken), trainer)
        return made

    @property
    def size(self) -> int:
        return int(self.encoding.get_vocab_size())

    @property
    def coefficients(self) -> int:
        """Symbols of a whole chunk, and so the most tokens that one can take."""
        return self.chunk * self.width

    def encode(self, chunks: NDArray[np.float32]) -> list[list[int]]:
        """[n, chunk, width] -> token numbers of each; what is beyond +-1 is cut off."""
        return [self.encoding.encode(self._text(one)).ids for one in chunks]

    def decode(self, tokens: Iterable[Sequence[int]]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Token numbers of each of n chunks -> [n, chunk, width] within +-1, and which were whole [n].

        Too few coefficients are filled up with zeros (the slow motion that was said stays), too many are cut off.
        """
        rows = [self._values(one) for one in tokens]
        whole = np.asarray([len(row) == self.coefficients for row in rows], bool)
        filled = np.zeros((len(rows), self.coefficients))
        for n, row in enumerate(rows):
            filled[n, : len(row)] = row[: self.coefficients]
        frequencies = filled.reshape(-1, self.chunk, self.width) / self.scale
        chunks = np.einsum("ft,nfd->ntd", cosines(self.chunk), frequencies)
        return np.clip(chunks, -1, 1).astype(np.float32), whole

    def _text(self, chunk: NDArray[np.float32]) -> str:
        frequencies = cosines(self.chunk) @ np.clip(np.asarray(chunk, np.float64), -1, 1)
        rounded = np.rint(self.scale * frequencies).astype(int).ravel() + highest(self.chunk, self.scale)
        return "".join(chr(FIRST + n) for n in rounded.tolist())

    def _values(self, tokens: Sequence[int]) -> list[int]:
        words = (self.encoding.id_to_token(n) or "" for n in tokens)
        top = highest(self.chunk, self.scale)
        return [ord(symbol) - FIRST - top for word in words for symbol in word]

    def save(self, folder: Path) -> None:
        facts = {"chunk": self.chunk, "width": self.width, "scale": self.scale}
        write_json(folder / FILE, {**facts, "encoding": self.encoding.to_str()})

    @classmethod
    def load(cls, folder: Path) -> FastTokenizer:
        """Raises: StageError, where it is missing or damaged."""
        found: dict[str, Any] = read_json(folder / FILE)
        try:
            encoding = Tokenizer.from_str(found["encoding"])
            return cls(int(found["chunk"]), int(found["width"]), float(found["scale"]), encoding)
        except Exception as error:  # tokenizers raises plain exceptions.
            raise StageError(f"{folder / FILE} is damaged ({error}); run the fine-tuning again") from error


def cosines(length: int) -> NDArray[np.float64]:
    """The orthonormal DCT-II as a matrix [frequency, time]; its transpose is its inverse."""
    frequency, time = np.arange(length)[:, None], np.arange(length)[None, :]
    matrix = np.sqrt(2 / length) * np.cos(np.pi * frequency * (2 * time + 1) / (2 * length))
    matrix[0] = np.sqrt(1 / length)
    return matrix
