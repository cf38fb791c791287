"""Perceptual hashes of pictures, and which of two sets are near copies.

The hash is the usual one of low frequencies (pHash). The library for it, imagehash, brings SciPy and PyWavelets for
what are a dozen lines here, and it compares pictures one by one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32
"""Pixels of the small grey picture that is looked at."""
FLAT = 4.0
"""Standard deviation of its grey values (of 255) below which there is nothing to see."""
PAIRS = 1 << 22
"""Pairs that are compared at once."""

_FREQUENCIES = np.cos(np.pi * (2 * np.arange(SIDE) + 1) * np.arange(8)[:, None] / (2 * SIDE))
_BITS = np.array([bin(n).count("1") for n in range(1 << 16)], np.uint8)


def perceptual_hash(picture: Image.Image) -> int | None:
    """64 bits that a change of size, format or quality alters in few places; None for a picture of one colour."""
    small = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, np.float64)
    if grey.std() < FLAT:
        return None
    parts = (_FREQUENCIES @ grey @ _FREQUENCIES.T).ravel()
    # The first part is the mean grey value, which says nothing of what is seen.
    bits = np.append(parts[1:] > np.median(parts[1:]), False)
    return int(np.packbits(bits).view(">u8")[0])


def distances(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Bits in which equally many hashes differ, pair by pair: [n]."""
    found: NDArray[np.uint8] = _BITS[(first ^ second).view(np.uint16)].reshape(-1, 4).sum(1, dtype=np.uint8)
    return found


def near_copies(
    first: NDArray[np.uint64], second: NDArray[np.uint64], most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """For each of `first` that has one: its nearest of `second`, at most `most` bits away. Exact.

    Two hashes that differ in at most `most` of 64 bits agree whole in one of `most` + 1 bands of them: only such pairs
    are compared.

    Returns:
        places in `first`, places in `second` (the first of equally near ones), bits in which they differ.
    """
    values, where = np.unique(second, return_index=True)
    best = np.full(len(first), np.iinfo(np.uint64).max, np.uint64)
    edges = np.linspace(0, 64, most + 2).astype(int)
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        band = np.uint64((1 << (high - low)) - 1)
        own, other = ((side >> np.uint64(low)) & band for side in (first, values))
        order = np.argsort(other, kind="stable")
        start, end = (np.searchsorted(other[order], own, side=side) for side in ("left", "right"))
        for rows in _chunks(end - start):
            counts = (end - start)[rows]
            row = np.repeat(rows, counts)
            place = order[np.repeat(start[rows] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())]
            apart = distances(first[row], values[place])
            near = apart <= most
            # The distance before the place: the least of these is the nearest, and the first of equally near ones.
            code = (apart[near].astype(np.uint64) << np.uint64(48)) | where[place[near]].astype(np.uint64)
            np.minimum.at(best, row[near], code)
    found = np.flatnonzero(best != np.iinfo(np.uint64).max)
    places = best[found] & np.uint64((1 << 48) - 1)
    return found, places.astype(np.int64), (best[found] >> np.uint64(48)).astype(np.uint8)


def _chunks(counts: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows in runs of at most about PAIRS pairs; such as have none left out."""
    rows = np.flatnonzero(counts)
    if not len(rows):
        return []
    cuts = np.flatnonzero(np.diff(np.cumsum(counts[rows]) // PAIRS)) + 1
    return np.split(rows, cuts)
