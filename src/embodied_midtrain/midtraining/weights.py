"""How often each source is drawn, where the mixture is given by weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.config import did_you_mean


def quotas(weights: Mapping[str, float], sources: Iterable[str], budget: int) -> dict[str, int]:
    """Draws by source, `budget` in all: proportional to the weights, the largest remainders rounded up.

    A source that has no weight is not drawn.

    Raises:
        ValueError: a weight of a source that is not there, a negative one, or none above zero.
    """
    known = sorted(set(sources))
    for name, weight in weights.items():
        if name not in known:
            raise ValueError(f"weights: there is no source '{name}'; {did_you_mean(name, known)}")
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weights: {name} has {weight}; a weight is a number from 0 on")
    total = sum(weights.values())
    if not total > 0:
        raise ValueError("weights: none is above 0, so there is nothing to draw")
    exact = {name: budget * weight / total for name, weight in sorted(weights.items()) if weight > 0}
    counts = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: (counts[name] - exact[name], name))[: budget - sum(counts.values())]:
        counts[name] += 1
    return counts


def spread(parts: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """The parts as one sequence, each spread evenly over it: every stretch has about the shares of the whole."""
    at = [np.stack([(np.arange(len(v)) + 0.5) / len(v), v]) for _, v in sorted(parts.items()) if len(v)]
    if not at:
        return np.zeros(0, np.int64)
    places, values = np.concatenate(at, 1)
    return values[np.argsort(places, kind="stable")].astype(np.int64)
