"""Which samples each step sees: a pure function of seed and step, so that a resumed run needs no data state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def draws(count: int, budget: int, seed: int) -> NDArray[np.int64]:
    """`budget` indices below `count`: whole shuffled epochs one after another, the last one cut off.

    No index comes k + 1 times before every index has come k times.

    Raises:
        ValueError: where there is nothing to draw from.
    """
    if count < 1:
        raise ValueError("there is nothing to train on: no usable sample")
    epochs = [np.random.default_rng([seed, epoch]).permutation(count) for epoch in range(-(-budget // count))]
    return np.concatenate(epochs)[:budget].astype(np.int64) if epochs else np.zeros(0, np.int64)


def bucketed(
    lengths: Sequence[int] | NDArray[np.int64], order: NDArray[np.int64], batch: int, seed: int, window: int = 16
) -> NDArray[np.int64]:
    """Cut `order` into batches of samples of like length, so that little of a batch is padding: [steps, batch].

    Sorting happens within windows of `window` batches, whose batches are then shuffled: over a run, long and
    short batches stay mixed, and what is drawn is exactly `order`.

    Raises:
        ValueError: where `order` does not divide into whole batches.
    """
    if len(order) % batch:
        raise ValueError(f"{len(order)} draws do not divide into batches of {batch}")
    sizes = np.asarray(lengths)
    rng = np.random.default_rng([seed, len(order), batch])
    steps: list[NDArray[np.int64]] = []
    for start in range(0, len(order), window * batch):
        part = order[start : start + window * batch]
        part = part[np.argsort(sizes[part], kind="stable")].reshape(-1, batch)
        steps.extend(part[rng.permutation(len(part))])
    return np.stack(steps) if steps else np.zeros((0, batch), np.int64)
