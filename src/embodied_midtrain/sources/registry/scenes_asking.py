"""From scenes to samples: which of a scene's many questions are asked, and how they are worded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from PIL import Image

from embodied_midtrain.samples import Sample, question
from embodied_midtrain.sources.registry.images import picture
from embodied_midtrain.sources.registry.scenes_questions import Question, questions
from embodied_midtrain.sources.registry.scenes_truth import Scene

T = TypeVar("T")

SIDE = 256
"""Pixels of the square pictures."""
PER_SCENE = 4
"""Questions about one picture."""


class Asker:
    """Picks questions so that over many scenes the kinds, and the answers within each kind, come out even."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._kinds: Counter[str] = Counter()
        self._answers: Counter[tuple[str, str]] = Counter()

    def pick(self, scene: Scene, number: int) -> list[tuple[Question, str]]:
        """At most `number` questions of different kinds about `scene`, each with the phrasing to use."""
        by_kind: dict[str, list[Question]] = {}
        for option in questions(scene):
            by_kind.setdefault(option.kind, []).append(option)
        picked = []
        for _ in range(min(number, len(by_kind))):
            kind = self._least(list(by_kind), [self._kinds[kind] for kind in by_kind])
            options = by_kind.pop(kind)
            asked = self._least(options, [self._answers[kind, option.answer] for option in options])
            self._kinds[kind] += 1
            self._answers[kind, asked.answer] += 1
            picked.append((asked, asked.phrasings[int(self._rng.integers(len(asked.phrasings)))]))
        return picked

    def _least(self, options: list[T], used: list[int]) -> T:
        """One of the options that were used least."""
        least = [option for option, times in zip(options, used, strict=True) if times == min(used)]
        return least[int(self._rng.integers(len(least)))]


def ask_all(scenes: Iterator[Scene], limit: int, seed: int, source: str, licence: str, origin: str) -> Iterator[Sample]:
    """`PER_SCENE` samples about each scene, until there are `limit`."""
    asker = Asker(np.random.default_rng([seed, 1]))
    made = 0
    for scene in scenes:
        shown = picture(Image.fromarray(scene.picture))
        for asked, phrasing in asker.pick(scene, min(PER_SCENE, limit - made)):
            made += 1
            yield question(
                source,
                f"{scene.id}-{asked.kind}",
                shown,
                phrasing,
                asked.answer,
                asked_regions=asked.pointed,
                answered_regions=asked.shown,
                licence=licence,
                origin=origin,
            )
        if made >= limit:
            return
