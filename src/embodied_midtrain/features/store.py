"""The feature store: Parquet shards of (source, id, feature), read by (source, id) or as a stream.

A feature is `dim` float16 values as fixed-size bytes, uncompressed and in one page for each row group. Any Parquet
reader takes that (`numpy.frombuffer(row, "float16")`), and here it is mapped without decoding: a list column is read
at a fifth of the speed. The file's metadata hold the width and a checksum of the features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Artifact, Skips, StageError

GROUP = 8192
"""Rows of a row group: with 1,024 values each, 16 MiB."""
_DIM, _HASH = b"emt.dim", b"emt.xxh3"
_UNREADABLE = (pa.ArrowException, KeyError, OSError, AttributeError, ValueError)


@dataclass(frozen=True)
class FeatureTable:
    """Features with their names, in the order of the store.

    Attributes:
        sources: [n] text.
        ids: [n] text.
        features: float32 [n, dim].
    """

    sources: NDArray[np.str_]
    ids: NDArray[np.str_]
    features: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, rows: NDArray[np.int64] | NDArray[np.bool_] | np.bool_) -> FeatureTable:
        """Some of the rows, by their places or marked."""
        return FeatureTable(self.sources[rows], self.ids[rows], self.features[rows])


@dataclass(frozen=True)
class Shard:
    """One file of a store.

    Raises:
        StageError: by its methods, where the file is damaged or no shard.
    """

    path: Path
    rows: int
    dim: int
    checksum: str

    @classmethod
    def open(cls, path: Path) -> Shard:
        try:
            facts = pq.read_metadata(path)
            about = facts.metadata or {}
            return cls(path, facts.num_rows, int(about[_DIM]), about[_HASH].decode())
        except _UNREADABLE as error:
            raise _damaged(path, error) from error

    def keys(self) -> tuple[pa.Array, pa.Array]:
        """Sources and ids: text [rows] each."""
        try:
            table = pq.read_table(self.path, columns=["source", "id"], memory_map=True)
            return table["source"].combine_chunks(), table["id"].combine_chunks()
        except _UNREADABLE as error:
            raise _damaged(self.path, error) from error

    def blocks(self) -> Iterator[NDArray[np.float16]]:
        """Features, some thousand rows at a time: [n, dim] each, mapped from the file, in the order of `keys`.

        After the last one the checksum is compared.
        """
        digest = xxhash.xxh3_64()
        try:
            for block in _mapped(self.path, self.dim):
                digest.update(block.data)
                yield block
        except _UNREADABLE as error:
            raise _damaged(self.path, error) from error
        if digest.hexdigest() != self.checksum:
            raise _damaged(self.path, "its features have another checksum than when they were written")


@dataclass(frozen=True)
class FeatureStore:
    """The features of an `emt embed` artifact as a stream: memory does not grow with them."""

    path: Path
    shards: tuple[Shard, ...]

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def dim(self) -> int:
        return self.shards[0].dim

    def blocks(self) -> Iterator[NDArray[np.float16]]:
        """All features in order: [n, dim] each."""
        for shard in self.shards:
            yield from shard.blocks()


def open_features(store: Artifact) -> FeatureStore:
    """The store of an `emt embed` artifact.

    Raises:
        StageError: where there is no feature, shards differ in width, or a file is no shard.
    """
    shards = tuple(Shard.open(path) for path in sorted(store.path.glob("shard-*.parquet")))
    if not any(shard.rows for shard in shards):
        raise StageError(f"{store.path} holds no features: was its input empty? See skipped.jsonl there.")
    widths = {shard.dim for shard in shards}
    if len(widths) > 1:
        raise StageError(
            f"{store.path} holds features of several widths {sorted(widths)}; embed again into a new folder."
        )
    return FeatureStore(store.path, shards)


def write_shard(path: Path, keys: Sequence[tuple[str, str]], features: NDArray[np.float16]) -> None:
    """One shard; `features` is [len(keys), dim]."""
    features = np.ascontiguousarray(features)
    count, dim = features.shape
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(2 * dim), count, [None, pa.py_buffer(features)])
    schema = pa.schema(
        [
            pa.field("source", pa.string(), nullable=False),
            pa.field("id", pa.string(), nullable=False),
            # Without nulls there is nothing but the values in a page.
            pa.field("feature", pa.binary(2 * dim), nullable=False),
        ],
        metadata={_DIM: str(dim), _HASH: xxhash.xxh3_64_hexdigest(features.data)},
    )
    table = pa.table([pa.array([k[0] for k in keys]), pa.array([k[1] for k in keys]), column], schema=schema)
    pq.write_table(
        table,
        path,
        row_group_size=GROUP,
        data_page_size=1 << 30,
        use_dictionary=["source"],
        compression={"source": "zstd", "id": "zstd", "feature": "none"},
        write_statistics=False,
    )


def read_features(store: Artifact, skips: Skips | None = None) -> FeatureTable:
    """All features of an `emt embed` artifact, rows with NaN or infinity left out and added to `skips`.

    Raises:
        StageError: as `open_features`, and where no feature is finite.
    """
    opened = open_features(store)
    features = np.empty((opened.rows, opened.dim), np.float32)
    at = 0
    for block in opened.blocks():
        features[at : at + len(block)] = block
        at += len(block)
    keys = [shard.keys() for shard in opened.shards]
    sources, ids = (np.array([name for pair in keys for name in pair[n].to_pylist()], np.str_) for n in (0, 1))
    finite = np.isfinite(features).all(axis=1)
    if finite.all():
        return FeatureTable(sources, ids, features)
    if skips is not None:
        for source, id in zip(sources[~finite], ids[~finite], strict=True):
            skips.add("nan feature", f"{source}/{id}")
    if not finite.any():
        raise StageError(
            f"every feature in {store.path} is NaN or infinite: the backbone's weights or its dtype are at fault."
        )
    return FeatureTable(sources, ids, features).at(finite)


def _damaged(path: Path, why: Any) -> StageError:
    return StageError(f"{path} is not a feature shard ({why}); remove it and give its embed command again.")


def _mapped(path: Path, dim: int) -> Iterator[NDArray[np.float16]]:
    """The features of each row group where they lie, or decoded where another writer has put them otherwise."""
    file = pq.ParquetFile(path, memory_map=True)
    facts = file.metadata
    column = file.schema.names.index("feature")
    whole: NDArray[np.uint8] | None = None
    for group in range(facts.num_row_groups):
        place = facts.row_group(group).column(column)
        size = place.num_values * 2 * dim
        header = place.total_compressed_size - size
        # One page of plain values is its header (some dozen bytes) and the values; two have a second header.
        plain = place.compression == "UNCOMPRESSED" and not place.has_dictionary_page and 0 < header < 64
        if plain:
            whole = np.memmap(path, np.uint8, "r") if whole is None else whole
            start = place.data_page_offset + header
            yield whole[start : start + size].view(np.float16).reshape(-1, dim)
        else:
            values = file.read_row_group(group, columns=["feature"])["feature"].combine_chunks()
            flat = np.frombuffer(values.buffers()[1], np.float16, count=len(values) * dim, offset=0)
            yield flat.reshape(-1, dim)
