"""Samples in Parquet files: what a pool artifact consists of.

Columns: source, id (string), images (list of binary, encoded), turns (string, JSON as in `samples.turns_to_json`),
licence, origin (string). Equal samples give equal bytes; neither writing nor reading holds more than one row group.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.samples import Picture, Sample, turns_from_json, turns_to_json

SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("id", pa.string()),
        ("images", pa.list_(pa.binary())),
        ("turns", pa.string()),
        ("licence", pa.string()),
        ("origin", pa.string()),
    ]
)
ROW_GROUP = 64
"""Rows: about a megabyte of images, which is what one random access reads."""


def write_table(path: Path, samples: Iterable[Sample]) -> int:
    """Write samples in order; returns how many.

    Raises:
        BadSample: where a picture of a sample cannot be read.
    """
    count = 0
    # Encoded images do not compress any further.
    compression = {name: "zstd" for name in SCHEMA.names if name != "images"} | {"images.list.element": "none"}
    with pq.ParquetWriter(path, SCHEMA, compression=compression, write_statistics=False) as writer:
        rows: list[dict[str, Any]] = []
        for sample in samples:
            rows.append(_row(sample))
            count += 1
            if len(rows) == ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA), row_group_size=ROW_GROUP)
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA), row_group_size=ROW_GROUP)
    return count


def read_table(path: Path) -> Iterator[Sample]:
    """The samples of one file, in order.

    Raises:
        StageError: where the file is missing or damaged.
    """
    with _open(path) as file:
        for group in range(file.num_row_groups):
            yield from _samples(file, group)


class SampleIndex:
    """Random access to the samples of several files by (source, id). A few row groups are kept in memory."""

    def __init__(self, paths: Sequence[Path], *, keep: int = 64) -> None:
        self._files = [_open(path) for path in paths]
        self._place: dict[tuple[str, str], tuple[int, int, int]] = {}
        self._kept: OrderedDict[tuple[int, int], list[Sample]] = OrderedDict()
        self._keep = keep
        for number, file in enumerate(self._files):
            for group in range(file.num_row_groups):
                keys = file.read_row_group(group, columns=["source", "id"]).to_pydict()
                for row, key in enumerate(zip(keys["source"], keys["id"], strict=True)):
                    self._place[key] = (number, group, row)

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._place

    def __getitem__(self, key: tuple[str, str]) -> Sample:
        number, group, row = self._place[key]
        place = (number, group)
        if place not in self._kept:
            self._kept[place] = list(_samples(self._files[number], group))
            if len(self._kept) > self._keep:
                self._kept.popitem(last=False)
        self._kept.move_to_end(place)
        return self._kept[place][row]


def _open(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise StageError(f"{path} is missing; build the pool again into a new folder") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise StageError(f"{path} is damaged ({error}); build the pool again into a new folder") from error
    if not set(SCHEMA.names) <= set(file.schema_arrow.names):
        raise StageError(f"{path} is no table of samples; its columns are {', '.join(file.schema_arrow.names)}")
    return file


def _row(sample: Sample) -> dict[str, Any]:
    return {
        "source": sample.source,
        "id": sample.id,
        "images": [picture.read() for picture in sample.pictures],
        "turns": turns_to_json(sample.turns),
        "licence": sample.licence,
        "origin": sample.origin,
    }


def _samples(file: pq.ParquetFile, group: int) -> Iterator[Sample]:
    for row in file.read_row_group(group).to_pylist():
        pictures = tuple(Picture(data=data) for data in row["images"])
        turns = turns_from_json(row["turns"])
        yield Sample(row["source"], row["id"], pictures, turns, row["licence"], row["origin"])
