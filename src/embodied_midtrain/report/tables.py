"""Reads the Parquet files that a summary names; whatever cannot be read is a notice on the page, not a crash."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Key = tuple[str, str]


class Unreadable(ValueError):
    """A file of the run is missing or is not what it should be; the message is shown on the page."""


@dataclass(frozen=True)
class Scores:
    """Every pool sample's score, from the closest to the farthest.

    Attributes:
        keys: (source, id) of each sample.
        scores: float64 [samples], falling.
        percentile: in [0, 100], 100 is closest; equal scores share one.
    """

    keys: list[Key]
    scores: NDArray[np.float64]
    percentile: NDArray[np.float64]

    @cached_property
    def by_source(self) -> dict[str, list[int]]:
        """Indices of each source's samples, the closest first."""
        indices: dict[str, list[int]] = {}
        for i, (source, _) in enumerate(self.keys):
            indices.setdefault(source, []).append(i)
        return indices


def run_file(run: Path, name: str) -> Path:
    """A path inside the run's folder.

    Raises:
        Unreadable: where it is missing, or leads out of the folder.
    """
    path = (run / name).resolve()
    if not path.is_relative_to(run.resolve()):
        raise Unreadable(f"{name} is outside the run's folder")
    if not path.exists():
        raise Unreadable(f"{name} is missing from the run's folder")
    return path


def read_table(run: Path, name: str, columns: Sequence[str]) -> pa.Table:
    """A Parquet file with at least these columns.

    Raises:
        Unreadable: where it is missing, damaged, or lacks a column.
    """
    path = run_file(run, name)
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(f"{name} is not a readable Parquet file ({error})") from error
    if lacking := [c for c in columns if c not in table.column_names]:
        raise Unreadable(f"{name} lacks the column {', '.join(lacking)}")
    return table


def read_scores(run: Path, name: str) -> Scores:
    """Raises `Unreadable` as `read_table` does, and where no score is finite."""
    table = read_table(run, name, ("source", "id", "score"))
    scores = np.asarray(table["score"].to_numpy(zero_copy_only=False), float)
    keys = list(zip(table["source"].to_pylist(), table["id"].to_pylist(), strict=True))
    kept = np.flatnonzero(np.isfinite(scores))
    if len(kept) == 0:
        raise Unreadable(f"{name} holds no finite score")
    order = kept[np.argsort(-scores[kept], kind="stable")]
    falling = scores[order]
    # Mean position of equal scores, from the lowest (0) to the highest (100).
    _, inverse, counts = np.unique(falling, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    percentile = 100 * middle[inverse] / max(1, len(falling) - 1)
    return Scores([keys[i] for i in order], falling, percentile)


def read_keys(run: Path, name: str) -> list[Key]:
    table = read_table(run, name, ("source", "id"))
    return list(zip(table["source"].to_pylist(), table["id"].to_pylist(), strict=True))


def to_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV that a spreadsheet opens as data: no cell of a data set is taken for a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([[_harmless(cell) for cell in row] for row in rows])
    return text.getvalue()


def _harmless(cell: object) -> object:
    return "'" + cell if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
