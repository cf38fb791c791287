"""One interface for whatever ranks a pool by its features, and its use over a whole store."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from embodied_midtrain.features.store import FeatureStore
from embodied_midtrain.progress import progress_bar

ROWS = 512
"""Rows whose float32 copy still lies in a processor's cache when it is multiplied."""


class Scorer(Protocol):
    """A fitted measure of proximity."""

    def scores(self, features: NDArray[np.float16] | NDArray[np.float32], /) -> NDArray[np.float32]:
        """Of each row [n, dim]: [n], higher is closer; NaN where a row holds a NaN."""
        ...


def score_store(scorer: Scorer, store: FeatureStore) -> NDArray[np.float32]:
    """Scores of every row of a store, in its order: [rows]. Memory: four bytes a row, and one block."""
    found = np.empty(store.rows, np.float32)
    at = 0
    with progress_bar("score", store.rows) as bar:
        for block in store.blocks():
            found[at : at + len(block)] = scorer.scores(block)
            at += len(block)
            bar.advance(len(block))
    return found


def linear(features: NDArray[np.float16] | NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """features @ weight in float32: [n]; half precision is converted in the cache, not in memory.

    NaN where a row holds NaN or infinity.
    """
    column = torch.from_numpy(np.ascontiguousarray(weight, np.float32))
    rows = as_tensor(features)
    found = torch.empty(len(rows))
    for at in range(0, len(rows), ROWS):
        torch.mv(rows[at : at + ROWS].float(), column, out=found[at : at + ROWS])
    return found.masked_fill_(~found.isfinite(), float("nan")).numpy()


def in_float32(features: NDArray[np.float16] | NDArray[np.float32], rows: int = ROWS) -> Iterator[torch.Tensor]:
    """The rows in float32, some at a time: [up to `rows`, dim]."""
    tensor = as_tensor(features)
    for at in range(0, len(tensor), rows):
        yield tensor[at : at + rows].float()


def as_tensor(features: NDArray[np.float16] | NDArray[np.float32]) -> torch.Tensor:
    """The same memory as a tensor; it is only read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(features)
