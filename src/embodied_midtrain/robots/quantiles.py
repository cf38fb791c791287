"""Quantiles of a stream in flat memory.

A compactor (as in KLL, Karnin et al., arXiv 1603.05346, without its randomness): a level holds rows of one weight;
when it is full it is sorted, and every second row goes up a level, at twice the weight. Which half goes up takes
turns, so that what one compaction adds to a rank the next takes away. Up to `capacity` rows nothing is lost at all.

With n rows the rank of what is returned is wrong by at most n / capacity for each of the log2(n / capacity) levels:
at 65,536 and a thousand million rows 0.02 % of them, fifty times less than the percent that a 1st percentile is about.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CAPACITY = 65_536


class QuantileSketch:
    """Of each column of rows [n, width] that come in parts; the same parts give the same numbers.

    Args:
        capacity: rows that a level holds; even.
    """

    def __init__(self, width: int, capacity: int = CAPACITY) -> None:
        if capacity < 2 or capacity % 2:
            raise ValueError(f"capacity {capacity}: wanted an even number of at least 2")
        self.width = width
        self.capacity = capacity
        self.count = 0
        self._levels: list[NDArray[np.floating]] = [np.zeros((0, width), np.float32)]
        self._turns = [0]

    def add(self, rows: NDArray[np.floating]) -> None:
        """Take in rows [n, width]."""
        self.count += len(rows)
        for at in range(0, len(rows), self.capacity):
            self._put(0, rows[at : at + self.capacity])

    def _put(self, level: int, rows: NDArray[np.floating]) -> None:
        if level == len(self._levels):
            self._levels.append(np.zeros((0, self.width), np.float32))
            self._turns.append(0)
        held = np.concatenate([self._levels[level], rows])
        if len(held) <= self.capacity:
            self._levels[level] = held
            return
        # An odd one stays for the next time, so that weights add up to the count.
        even = len(held) - len(held) % 2
        self._levels[level] = held[even:]
        turn, self._turns[level] = self._turns[level], 1 - self._turns[level]
        self._put(level + 1, np.sort(held[:even], axis=0)[turn::2])

    def quantiles(self, shares: Sequence[float]) -> NDArray[np.float64]:
        """[len(shares), width]; while nothing was thrown away, as numpy interpolates them.

        Raises:
            ValueError: where no row has come.
        """
        if not self.count:
            raise ValueError("no rows, and so no quantiles")
        if len(self._levels) == 1:
            return np.asarray(np.quantile(self._levels[0], shares, axis=0), np.float64)
        values = np.concatenate(self._levels)
        weights = np.repeat([2.0**n for n in range(len(self._levels))], [len(level) for level in self._levels])
        found = np.empty((len(shares), self.width))
        for column in range(self.width):
            order = np.argsort(values[:, column], kind="stable")
            # A row stands for the middle of the ranks that it has the weight of.
            ranks = np.cumsum(weights[order]) - 0.5 * weights[order] - 0.5
            found[:, column] = np.interp(np.asarray(shares) * (self.count - 1), ranks, values[order, column])
        return found

    @property
    def held(self) -> int:
        """Rows in memory."""
        return sum(len(level) for level in self._levels)
