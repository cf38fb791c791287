"""Who may look at an item of the registry packages: the compact backbone's training, its check, or the pool.

The off-the-shelf backbone must be off the shelf: no sample of the default pool may have been in its training.
Both draw on the same labelled picture packages, so every item has one owner, told by a hash of its name.
Whoever reads items of such a package asks `owner` first:

- "general": the general training of the compact backbone (`emt backbone train`), 45 %.
- "held-out": its check (`emt backbone check`), 5 %.
- "pool": the default pool (`emt pool build`), 50 %.

Generated sources (charts, documents, scenes of a simulator) belong to the pool alone and need no owner. Scenes that
are COMPOSED of clip art take their parts from items of their own owner.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

Owner = Literal["general", "held-out", "pool"]

_EDGES: tuple[tuple[Owner, float], ...] = (("general", 0.45), ("held-out", 0.50), ("pool", 1.0))


def owner(source: str, item: str) -> Owner:
    """Who owns `item` of `source`; the same on every machine.

    Items that look alike share an owner, since only the stem of the name counts: "animals/cat_01.png", "Cat-2.svg" and
    "cat" are one. Where a source numbers items that do NOT look alike ("image_0001"), give a name that tells them
    apart, such as "image_0001a".

    Args:
        source: the source's short name; equal sources in different versions should be named equally. It does not
            count for the answer: one picture in two packages has one owner.
        item: its path or name in the source.
    """
    del source
    point = int.from_bytes(hashlib.sha256(stem(item).encode()).digest()[:8], "big") / 2**64
    return next(name for name, edge in _EDGES if point < edge)


def stem(item: str) -> str:
    """The name without folder, ending, numbers at its end, case and punctuation: "a/Red_Car-02.png" -> "red car"."""
    name = item.rsplit("/", 1)[-1]
    name = re.sub(r"\.[A-Za-z][A-Za-z0-9]{1,4}$", "", name).lower()
    words = re.sub(r"[^a-z0-9]+", " ", name).strip()
    short = re.sub(r"[ 0-9]+$", "", words)
    return re.sub(r" (mirror|flip|outline|bw|grayscale|small|large|copy|left|right|[a-d])$", "", short) or words
