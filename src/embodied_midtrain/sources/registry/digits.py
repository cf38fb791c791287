"""Handwritten digits in a row: the UCI digits that scikit-learn carries, with questions about the number they form."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.extras import require
from embodied_midtrain.samples import Sample, question
from embodied_midtrain.sources.registry.images import picture
from embodied_midtrain.sources.registry.source import Group

_SIDE = 56
"""Pixels that one digit is enlarged to, from 8."""


class Digits:
    """One to six real handwritten digits: reading, counting, comparing."""

    name = "handwritten-digits"
    group: Group = "general"
    licence = "CC-BY-4.0"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        """See `RegistrySource.samples`."""
        data = require("sklearn.datasets", "pool").load_digits()
        for number in range(limit):
            rng = random.Random(f"{seed}:{self.name}:{number}")
            chosen = [rng.randrange(len(data.target)) for _ in range(rng.randint(1, 6))]
            image = _row([data.images[i] for i in chosen], dark=rng.random() < 0.5)
            asked, answered = _ask([int(data.target[i]) for i in chosen], rng)
            yield question(
                self.name,
                f"{number:05d}",
                picture(image),
                asked,
                answered,
                licence=self.licence,
                origin=f"scikit-learn load_digits rows {', '.join(map(str, chosen))}",
            )


def _row(digits: list[NDArray[np.float64]], *, dark: bool) -> Image.Image:
    """Digits [8, 8] with ink 0 to 16, side by side on dark or light ground."""
    ink = np.concatenate([np.clip(digit * 255 / 16, 0, 255) for digit in digits], axis=1).astype(np.uint8)
    image = Image.fromarray(ink if dark else 255 - ink)
    return image.resize((_SIDE * len(digits), _SIDE), Image.Resampling.BICUBIC)


def _ask(digits: list[int], rng: random.Random) -> tuple[str, str]:
    read = "".join(map(str, digits))
    if len(digits) == 1:
        asked = rng.choice(("Which digit is written here?", "What number has been written by hand?"))
        return asked, rng.choice((f"{read}", f"It is a {read}.", f"The digit {read}."))
    seen = rng.choice(digits)
    kinds = [
        (rng.choice(("Read the handwritten number.", "Which digits are written here, from left to right?")), read),
        (f"How often does the digit {seen} occur?", str(digits.count(seen))),
        (rng.choice(("How many digits are there?", "Count the handwritten digits.")), str(len(digits))),
        (rng.choice(("Which digit comes first?", "What is the leftmost digit?")), f"{digits[0]}"),
        (rng.choice(("Which digit comes last?", "What is the rightmost digit?")), f"{digits[-1]}"),
        ("What is the largest of these digits?", f"{max(digits)}"),
    ]
    return rng.choice(kinds)
