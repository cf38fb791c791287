"""How far counts of successes can be trusted: intervals, paired tests, and a verdict in words.

Policies are compared on the same initial states, so differences are tested on pairs of episodes.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Outcome = Literal["better", "worse", "cannot tell"]
LEVEL = 0.05
"""Of tests."""


def wilson(successes: int, episodes: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share (Wilson 1927): holds its level for few episodes and at 0 and 100 %.

    Raises:
        ValueError: where there are no episodes, or more successes than episodes.
    """
    if episodes < 1 or not 0 <= successes <= episodes:
        raise ValueError(f"{successes} successes of {episodes} episodes")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / episodes
    scale = 1 + z * z / episodes
    centre = (share + z * z / (2 * episodes)) / scale
    half = z * math.sqrt(share * (1 - share) / episodes + z * z / (4 * episodes**2)) / scale
    # Rounding may leave 1e-17 where the bound is 0 or 1 exactly.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == episodes else min(1.0, centre + half)
    return low, high


WIDE = 0.3
"""Wider intervals leave open whether a policy is good or poor: 10 of 20 episodes have one of 30 to 70 %."""


def too_few(low: float, high: float) -> str:
    """ "too few episodes" where an interval of a share is too wide to build on; else nothing."""
    return "too few episodes" if high - low > WIDE else ""


def mcnemar(a: Sequence[bool] | NDArray[np.bool_], b: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Exact two-sided p of McNemar's test on pairs: could a fair coin decide the pairs that differ so unevenly?"""
    left, right = _pairs(a, b)
    only_a, only_b = int((left & ~right).sum()), int((~left & right).sum())
    differing = only_a + only_b
    if differing == 0:
        return 1.0
    tail = sum(math.comb(differing, k) for k in range(min(only_a, only_b) + 1)) / 2**differing
    return min(1.0, 2 * tail)


def paired_bootstrap(
    a: Sequence[bool] | NDArray[np.bool_],
    b: Sequence[bool] | NDArray[np.bool_],
    groups: Sequence[str] | None = None,
    *,
    confidence: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of mean(a) - mean(b), pairs drawn anew.

    Args:
        groups: the task of each pair; each task then keeps its number of pairs in every draw, as tasks were chosen
            and not sampled.
    """
    left, right = _pairs(a, b)
    difference = left.astype(np.float64) - right.astype(np.float64)
    random = np.random.default_rng(seed)
    names = np.asarray(groups if groups is not None else [""] * len(difference))
    if len(names) != len(difference):
        raise ValueError(f"{len(names)} groups for {len(difference)} pairs")
    total = np.zeros(draws)
    for name in sorted(set(names.tolist())):
        values = difference[names == name]
        total += values[random.integers(len(values), size=(draws, len(values)))].sum(axis=1)
    low, high = np.quantile(total / len(difference), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p of several tests (Holm 1979): below a level, a finding holds with that chance of any false one.

    Valid whatever the tests have in common, as those against one baseline do.
    """
    adjusted, least = [0.0] * len(p), 0.0
    for rank, at in enumerate(sorted(range(len(p)), key=lambda at: p[at])):
        least = max(least, min(1.0, p[at] * (len(p) - rank)))
        adjusted[at] = least
    return adjusted


@dataclass(frozen=True, slots=True)
class Difference:
    """Two variants on the same episodes.

    Attributes:
        a, b: shares of success.
        difference: a - b.
        low, high: 95 % interval of the difference (paired bootstrap within tasks).
        pairs, differing: episodes, and how many of them ended differently.
        p: exact McNemar.
        p_adjusted: the same by Holm, where it is one of several `tests`.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    pairs: int
    differing: int
    p: float
    p_adjusted: float
    tests: int = 1

    @property
    def outcome(self) -> Outcome:
        """a against b. Both the interval must leave out 0 and p be below the level: the bootstrap alone is too sure of
        itself with few pairs (from 5 of 5 in one direction it excludes 0 with certainty; the coin says p = .06)."""
        if self.p_adjusted >= LEVEL or self.low <= 0 <= self.high:
            return "cannot tell"
        return "better" if self.difference > 0 else "worse"

    def verdict(self, name_a: str, name_b: str) -> str:
        """The sentence for a reader."""
        facts = (
            f"{name_a} {self.a:.0%}, {name_b} {self.b:.0%}, n = {self.pairs} pairs; difference "
            f"{100 * self.difference:+.0f} points, 95 % interval {100 * self.low:+.0f} to {100 * self.high:+.0f}, "
            f"p = {self.p:.2g}"
        )
        if self.tests > 1:
            facts += f", by Holm over {self.tests} tests {self.p_adjusted:.2g}"
        if self.outcome != "cannot tell":
            return f"{name_a} is {self.outcome} than {name_b}, by more than noise ({facts})."
        text = f"{name_a} and {name_b} cannot be told apart with this many episodes ({facts})."
        share, level = self.differing / self.pairs, LEVEL / self.tests
        if self.difference and (wanted := _episodes_wanted(abs(self.difference), share, level)) > self.pairs:
            text += f" A difference of this size would need about {wanted} episodes each to show."
        return text


def compare(
    a: Sequence[bool] | NDArray[np.bool_], b: Sequence[bool] | NDArray[np.bool_], tasks: Sequence[str] | None = None
) -> Difference:
    """The difference between two variants on the same episodes.

    Args:
        a, b: success per episode, in the same order of task and initial state.
        tasks: the task of each episode.

    Raises:
        ValueError: on lists of different lengths, or empty ones.
    """
    left, right = _pairs(a, b)
    share_a, share_b = float(left.mean()), float(right.mean())
    low, high = paired_bootstrap(left, right, tasks)
    p = mcnemar(left, right)
    differing = int((left != right).sum())
    return Difference(share_a, share_b, share_a - share_b, low, high, len(left), differing, p, p)


def corrected(found: Sequence[Difference], controls: Container[int] = ()) -> list[Difference]:
    """Several tests that one answer rests on: a finding has to survive all of them (Holm).

    Args:
        controls: places of tests that ask another question, of the benchmark: they stay as they are.
    """
    tests = [n for n in range(len(found)) if n not in controls]
    adjusted = dict(zip(tests, holm([found[n].p for n in tests]), strict=True))
    return [
        replace(one, p_adjusted=adjusted[n], tests=len(tests)) if n in adjusted else one for n, one in enumerate(found)
    ]


def _episodes_wanted(difference: float, differing: float, level: float, power: float = 0.8) -> int:
    """Pairs that McNemar's test needs (Miettinen 1968, the unconditional form), rounded up to tens."""
    z_level, z_power = NormalDist().inv_cdf(1 - level / 2), NormalDist().inv_cdf(power)
    spread = max(differing - difference**2, 0.0)
    pairs = ((z_level * math.sqrt(differing) + z_power * math.sqrt(spread)) / difference) ** 2
    return 10 * math.ceil(pairs / 10)


def _pairs(
    a: Sequence[bool] | NDArray[np.bool_], b: Sequence[bool] | NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    left, right = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if left.shape != right.shape or left.ndim != 1 or not len(left):
        raise ValueError(
            f"{left.size} and {right.size} episodes: a comparison needs the same episodes of both, at least one"
        )
    return left, right
