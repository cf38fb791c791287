"""Which of the many questions about a picture are asked, so that kinds and answers come out even."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from embodied_midtrain.samples import Region

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """One question about pictures.

    Attributes:
        kind: what is asked for; a picture is asked each kind once at most.
        phrasings: ways to ask it, each with `REGION_MARK` where `pointed` goes.
        answer: the text; `REGION_MARK` where `shown` is the answer.
        subject: what its words name, and its answer might be guessed from.
        about: what the question is about in one tuple, for whoever checks the answer.
    """

    kind: str
    phrasings: tuple[str, ...]
    answer: str
    about: tuple[str | float, ...] = ()
    pointed: tuple[Region, ...] = ()
    shown: tuple[Region, ...] = ()
    subject: str = ""


Q = TypeVar("Q", bound=Question)
FREE = 2
"""How often an answer may be given before its share counts."""


class Asker(Generic[Q]):
    """Picks questions so that over many pictures the kinds, and the answers within each kind, come out even."""

    def __init__(
        self,
        rng: np.random.Generator,
        shares: Mapping[str, float] | None = None,
        most: Mapping[str, float] | None = None,
    ) -> None:
        """
        Args:
            shares: what part of all questions each kind is to be; without it all are equal. Others are not asked.
            most: the largest share that an answer may have among the questions of a kind about the same subject, for
                kinds that have few answers: a question whose answer is too common there is not asked.
        """
        self._rng, self._shares, self._most = rng, shares, most or {}
        self._kinds: Counter[str] = Counter()
        self._answers: Counter[tuple[str, ...]] = Counter()

    def pick(self, options: Iterable[Q], number: int) -> list[tuple[Q, str]]:
        """At most `number` questions of different kinds, each with the phrasing to use."""
        by_kind: dict[str, list[Q]] = {}
        for option in options:
            if self._share(option.kind) > 0 and not self._too_common(option):
                by_kind.setdefault(option.kind, []).append(option)
        picked = []
        for _ in range(min(number, len(by_kind))):
            kind = self._least(list(by_kind), [self._kinds[kind] / self._share(kind) for kind in by_kind])
            choice = by_kind.pop(kind)
            asked = self._least(choice, [self._answers[kind, option.answer] for option in choice])
            self._kinds[kind] += 1
            self._answers[kind, asked.answer] += 1
            self._answers[kind, asked.subject, asked.answer] += 1
            self._answers[kind, asked.subject, "", ""] += 1
            picked.append((asked, asked.phrasings[int(self._rng.integers(len(asked.phrasings)))]))
        return picked

    def _share(self, kind: str) -> float:
        return 1.0 if self._shares is None else self._shares.get(kind, 0.0)

    def _too_common(self, option: Q) -> bool:
        if (most := self._most.get(option.kind)) is None:
            return False
        given = self._answers[option.kind, option.subject, option.answer] + 1
        of = self._answers[option.kind, option.subject, "", ""] + 1
        return given > max(FREE, math.ceil(most * of))

    def _least(self, options: list[T], used: list[float]) -> T:
        """One of the options that were used least."""
        least = [option for option, times in zip(options, used, strict=True) if times == min(used)]
        return least[int(self._rng.integers(len(least)))]
