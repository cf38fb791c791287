"""DSIR on text alone (Xie et al., 2023, arXiv 2302.03169): how much of the signal is in the words?

Words and pairs of neighbouring words are hashed into buckets; a sample's score is the log of how much likelier its
buckets are under the target's texts than under the pool's. No picture is looked at, so that a selection by it is what a
proximity estimator would give that reads the prompt only.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.samples import REGION_MARK, Sample

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class TextConfig:
    """How texts are compared."""

    buckets: int = 10_000
    """Of the hash."""
    smoothing: float = 1.0
    """Added to each bucket's count on both sides: without it one new word decides."""
    answers: bool = False
    """Whether a sample's answers are read too; robot prompts have none."""

    def check(self) -> None:
        """Raise ValueError on settings that cannot be meant."""
        if self.buckets < 2 or self.smoothing <= 0:
            raise ValueError(f"{self.buckets} buckets and smoothing {self.smoothing}: wanted 2 or more, above 0")


@dataclass(frozen=True)
class TextRatio:
    """Fitted bag-of-n-gram models.

    Attributes:
        log_ratio: log(p_target / p_pool) of each bucket: float64 [buckets].
    """

    log_ratio: NDArray[np.float64]

    def score(self, text: str) -> float:
        """log(p_target(text) / p_pool(text)), the sum over its n-grams."""
        return float(self.log_ratio[ngrams(text, len(self.log_ratio))].sum())


def fit_text(pool: Iterable[str], target: Iterable[str], config: TextConfig) -> TextRatio:
    """Count both sides.

    Raises:
        StageError: where a side holds no word.
        ValueError: on settings that cannot be meant.
    """
    config.check()
    logs = []
    for name, side in (("pool", pool), ("target", target)):
        counts = np.zeros(config.buckets)
        for text in side:
            np.add.at(counts, ngrams(text, config.buckets), 1.0)
        if not counts.any():
            raise StageError(f"the {name}'s texts hold no word to compare by")
        counts += config.smoothing
        logs.append(np.log(counts / counts.sum()))
    return TextRatio(logs[1] - logs[0])


def ngrams(text: str, buckets: int) -> NDArray[np.int64]:
    """The bucket of each word and of each pair of neighbours."""
    words = _WORD.findall(text.lower())
    grams = [*words, *(f"{a} {b}" for a, b in itertools.pairwise(words))]
    return np.fromiter((xxhash.xxh64_intdigest(gram.encode()) % buckets for gram in grams), np.int64, len(grams))


def text_of(sample: Sample, config: TextConfig) -> str:
    """What is read of a sample."""
    said = [turn.text for turn in sample.turns if config.answers or turn.role == "user"]
    return "\n".join(said).replace(REGION_MARK, "")
