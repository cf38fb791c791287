"""How far counts of successes can be trusted: intervals, paired tests, and a verdict in words.

Policies are compared on the same initial states, so differences are tested on pairs of episodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Outcome = Literal["better", "worse", "cannot tell"]


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
        p: exact McNemar.
        outcome: a against b; "cannot tell" unless interval and test agree.
        verdict: the sentence for a reader.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    outcome: Outcome
    verdict: str


def compare(
    a: Sequence[bool] | NDArray[np.bool_],
    b: Sequence[bool] | NDArray[np.bool_],
    *,
    tasks: Sequence[str] | None = None,
    name_a: str = "a",
    name_b: str = "b",
    level: float = 0.05,
) -> Difference:
    """Whether the difference between two variants on the same episodes is more than noise.

    Both the interval must leave out 0 and McNemar's p be below `level`: the bootstrap alone is too sure of itself
    with few pairs (from 5 of 5 in one direction it excludes 0 with certainty; the coin says p = .06).

    Args:
        a, b: success per episode, in the same order of task and initial state.
        tasks: the task of each episode.

    Raises:
        ValueError: on lists of different lengths, or empty ones.
    """
    left, right = _pairs(a, b)
    n = len(left)
    share_a, share_b = float(left.mean()), float(right.mean())
    low, high = paired_bootstrap(left, right, tasks, confidence=1 - level)
    p = mcnemar(left, right)
    difference = share_a - share_b
    sure = p < level and (low > 0 or high < 0)
    outcome: Outcome = "cannot tell" if not sure else "better" if difference > 0 else "worse"
    shares = f"{name_a} {share_a:.0%}, {name_b} {share_b:.0%}, n = {n} pairs"
    span = (
        f"difference {100 * difference:+.0f} points, 95 % interval {100 * low:+.0f} to {100 * high:+.0f}, p = {p:.2g}"
    )
    if outcome == "cannot tell":
        verdict = f"{name_a} and {name_b} cannot be told apart with this many episodes ({shares}; {span})."
        differing = int((left != right).sum())
        share = differing / n
        if difference and (wanted := _episodes_wanted(abs(difference), share, level)) > n:
            verdict += f" A difference of this size would need about {wanted} episodes each to show."
    else:
        verdict = f"{name_a} is {outcome} than {name_b}, by more than noise ({shares}; {span})."
    return Difference(share_a, share_b, difference, low, high, p, outcome, verdict)


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
