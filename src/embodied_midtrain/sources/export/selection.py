"""The lines of a selection, found by (source, id): some dozen bytes a line, whatever the size of the pool."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embodied_midtrain.artifacts import Artifact, StageError, file_sha256
from embodied_midtrain.sources.files import key_number

MANIFEST_TABLE = "selection.parquet"
_KEY = ("source", "id")
_FACTS = ("score", "rank", "reason")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a selection.

    Attributes:
        facts: score, rank and reason, as far as the selection has them.
        copy: 0 for the first line of a sample, 1 for the next: a selection may name a sample several times.
    """

    source: str
    id: str
    facts: dict[str, Any]
    copy: int


class Selection:
    """A table of (source, id, score, rank, reason) and a mark on each line that was asked for."""

    def __init__(self, table: pa.Table, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._table = table.select([name for name in (*_KEY, *_FACTS) if name in table.column_names]).combine_chunks()
        keys = zip(self._table["source"].to_pylist(), self._table["id"].to_pylist(), strict=True)
        numbers = np.fromiter((key_number(key) for key in keys), np.uint64, len(table))
        self._order = np.argsort(numbers, kind="stable")
        self._numbers = numbers[self._order]
        self._found = np.zeros(len(table), np.bool_)

    @classmethod
    def open(cls, path: Path) -> Selection:
        """The selection of an `emt select` folder, or a Parquet file with columns source and id (and more).

        Raises:
            StageError: where it is neither.
        """
        file, fingerprint = path, ""
        if path.is_dir():
            artifact = Artifact.open(path, "select")
            file, fingerprint = artifact.file(MANIFEST_TABLE), artifact.fingerprint
        try:
            table = pq.read_table(file)
        except (pa.ArrowException, OSError) as error:
            raise StageError(
                f"{file} is no selection ({error}); give an 'emt select' folder or a Parquet file"
            ) from error
        lacks = [name for name in _KEY if name not in table.column_names]
        if lacks:
            raise StageError(f"{file} has no column {' or '.join(lacks)}; it has {', '.join(table.column_names)}")
        for name in _KEY:
            column = table[name].cast(pa.string())
            if column.null_count:
                raise StageError(f"{file}: {column.null_count} lines have no {name}")
            table = table.set_column(table.column_names.index(name), name, column)
        if not len(table):
            raise StageError(f"{file} holds no sample")
        return cls(table, fingerprint or file_sha256(file))

    def __len__(self) -> int:
        return len(self._order)

    def take(self, key: tuple[str, str]) -> list[Line]:
        """The lines of a sample in their order, or none where it is not chosen or was asked for before."""
        number = np.uint64(key_number(key))
        at = int(np.searchsorted(self._numbers, number))
        lines: list[Line] = []
        while at < len(self._numbers) and self._numbers[at] == number:
            row = int(self._order[at])
            at += 1
            if self._found[row] or (self._table["source"][row].as_py(), self._table["id"][row].as_py()) != key:
                continue
            self._found[row] = True
            facts = {name: self._table[name][row].as_py() for name in _FACTS if name in self._table.column_names}
            # NaN is no JSON.
            facts = {name: v for name, v in facts.items() if not (isinstance(v, float) and not math.isfinite(v))}
            lines.append(Line(*key, facts, len(lines)))
        return lines

    def not_taken(self) -> list[tuple[str, str]]:
        """Keys of the lines that nobody asked for."""
        rest = self._table.filter(pa.array(~self._found))
        return list(zip(rest["source"].to_pylist(), rest["id"].to_pylist(), strict=True))

    def by_source(self) -> Counter[str]:
        """How many lines each source has."""
        return Counter(self._table["source"].to_pylist())
