"""Which scenes and episodes are asked about in training, and which are held out."""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "held-out"]
HELD_OUT = 0.2
"""Share of all scenes and episodes."""


def split_of(scene: str) -> Split:
    """On which side a scene, an episode or a picture is, by its name alone: the same in every call."""
    point = int.from_bytes(hashlib.sha256(scene.encode()).digest()[:8], "big") / 2**64
    return "held-out" if point < HELD_OUT else "train"
