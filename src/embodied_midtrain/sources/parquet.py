"""Parquet files and Hugging Face `datasets` as they lie on disk or on the hub: images as bytes or paths.

A data set on the hub is read through its Parquet files (`hf://datasets/NAME/**/*.parquet`); a folder that
`save_to_disk` wrote, through its Arrow files. No code of a data set is run.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embodied_midtrain.samples import BadSample, Picture
from embodied_midtrain.sources.files import FilePool, Record
from embodied_midtrain.sources.places import Place

ENDINGS = (".parquet", ".arrow")
_ROWS = 64
"""Rows read at once: with images inside, some megabytes."""


@dataclass(frozen=True)
class ParquetCell:
    """The bytes of an image in one row of a Parquet file."""

    place: Place
    group: int
    row: int
    column: str
    number: int
    """Which image of the row."""

    def read(self) -> bytes:
        try:
            value = _column(self.place, self.group, self.column)[self.row].as_py()
        except (OSError, pa.ArrowException, IndexError, ValueError) as error:
            raise BadSample("unreadable image", f"{self.place.text}: {error}") from error
        value = value[self.number] if isinstance(value, list) else value
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise BadSample("unreadable image", f"{self.place.text} has changed")
        return data


@functools.lru_cache(maxsize=4)
def _column(place: Place, group: int, column: str) -> pa.ChunkedArray:
    with place.open() as file:
        return pq.ParquetFile(file).read_row_group(group, columns=[column])[column]


class ParquetPool(FilePool):
    """Tables as a pool; only columns that the source's fields name are read."""

    def records(self, place: Place, *, lazily: bool = False) -> Iterator[Record]:
        try:
            with place.open() as file:
                if place.suffix == ".arrow":
                    yield from _arrow(file)
                else:
                    yield from self._parquet(place, pq.ParquetFile(file), lazily)
        except (pa.ArrowException, OSError, ValueError) as error:
            yield Record("(the rest)", BadSample("broken table", f"{place.text}: {str(error)[:200]}"))

    def _parquet(self, place: Place, file: pq.ParquetFile, lazily: bool) -> Iterator[Record]:
        wanted = set(self.maker.fields.columns())
        # Records of a shape of their own may use any column.
        names = [n for n in file.schema_arrow.names if n in wanted] if self.maker.rewrite is None else None
        if names == []:
            have = ", ".join(file.schema_arrow.names)
            yield Record("(all rows)", BadSample("unknown columns", f"the file has {have}; say which are which"))
            return
        fields = self.maker.fields
        if names is not None and not set(fields.image) & set(names):
            # Whether a row without an image has a video.
            names += [n for n in file.schema_arrow.names if n in fields.video]
        number = 0
        for group in range(file.num_row_groups):
            row = 0
            for batch in file.iter_batches(_ROWS, row_groups=[group], columns=names):
                for record in batch.to_pylist():
                    yield Record(f"row {number}", _left_there(record, place, group, row) if lazily else record)
                    number, row = number + 1, row + 1


def _arrow(file: Any) -> Iterator[Record]:
    number = 0
    for batch in pa.ipc.open_stream(file):
        for start in range(0, batch.num_rows, _ROWS):
            for record in batch.slice(start, _ROWS).to_pylist():
                yield Record(f"row {number}", record)
                number += 1


def _left_there(record: dict[str, Any], place: Place, group: int, row: int) -> dict[str, Any]:
    """The record with a reference in place of every image's bytes."""

    def left(value: Any, column: str, number: int) -> Any:
        data = value.get("bytes") if isinstance(value, dict) else value
        return Picture(stored=ParquetCell(place, group, row, column, number)) if isinstance(data, bytes) else value

    return {
        name: [left(v, name, n) for n, v in enumerate(value)] if isinstance(value, list) else left(value, name, 0)
        for name, value in record.items()
    }
