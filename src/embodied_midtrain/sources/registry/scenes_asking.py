"""From scenes to samples: which of a scene's many questions are asked, and how they are worded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from embodied_midtrain.samples import Sample, question
from embodied_midtrain.sources.asking import Asker, Question
from embodied_midtrain.sources.registry.images import picture
from embodied_midtrain.sources.registry.scenes_questions import questions
from embodied_midtrain.sources.registry.scenes_truth import Scene

SIDE = 256
"""Pixels of the square pictures."""
PER_SCENE = 4
"""Questions about one picture."""


def ask_all(scenes: Iterator[Scene], limit: int, seed: int, source: str, licence: str, origin: str) -> Iterator[Sample]:
    """`PER_SCENE` samples about each scene, until there are `limit`."""
    asker: Asker[Question] = Asker(np.random.default_rng([seed, 1]))
    made = 0
    for scene in scenes:
        shown = picture(Image.fromarray(scene.picture))
        for asked, phrasing in asker.pick(questions(scene), min(PER_SCENE, limit - made)):
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
