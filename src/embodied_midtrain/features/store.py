"""The feature store: Parquet shards of (source, id, feature float16), read by (source, id)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Artifact, Skips, StageError


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

    def of(self, source: str) -> NDArray[np.float32]:
        """Features of one source: [m, dim]."""
        return self.features[self.sources == source]

    def source_names(self) -> list[str]:
        """Sources in alphabetical order."""
        return sorted(set(self.sources.tolist()))


def write_shard(path: Path, keys: Sequence[tuple[str, str]], features: NDArray[np.float16]) -> None:
    """One shard; `features` is [len(keys), dim]."""
    width = features.shape[1]
    column = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1), pa.float16()), width)
    table = pa.table({"source": [k[0] for k in keys], "id": [k[1] for k in keys], "feature": column})
    pq.write_table(table, path, compression="zstd", write_statistics=False)


def read_features(store: Artifact, skips: Skips | None = None) -> FeatureTable:
    """All features of an `emt embed` artifact, rows with NaN or infinity left out and added to `skips`.

    Raises:
        StageError: where there is no feature, shards differ in width, or a file is no shard.
    """
    shards = sorted(store.path.glob("shard-*.parquet"))
    tables = [_read_shard(path) for path in shards]
    if not any(len(t.ids) for t in tables):
        raise StageError(f"{store.path} holds no features: was its input empty? See skipped.jsonl there.")
    widths = {t.features.shape[1] for t in tables}
    if len(widths) > 1:
        raise StageError(
            f"{store.path} holds features of several widths {sorted(widths)}; embed again into a new folder."
        )
    whole = FeatureTable(
        *(np.concatenate([getattr(t, name) for t in tables]) for name in ("sources", "ids", "features"))
    )
    finite = np.isfinite(whole.features).all(axis=1)
    if skips is not None:
        for source, id in zip(whole.sources[~finite], whole.ids[~finite], strict=True):
            skips.add("nan feature", f"{source}/{id}")
    if not finite.any():
        raise StageError(
            f"every feature in {store.path} is NaN or infinite: the backbone's weights or its dtype are at fault."
        )
    return FeatureTable(whole.sources[finite], whole.ids[finite], whole.features[finite])


def _read_shard(path: Path) -> FeatureTable:
    try:
        table = pq.read_table(path)
        column = table["feature"].combine_chunks()
        flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        features = flat.reshape(len(table), -1) if len(table) else flat.reshape(0, column.type.list_size)
        return FeatureTable(
            np.array(table["source"].to_pylist(), dtype=np.str_),
            np.array(table["id"].to_pylist(), dtype=np.str_),
            features,
        )
    except (pa.ArrowInvalid, KeyError, OSError, AttributeError) as error:
        raise StageError(
            f"{path} is not a feature shard ({error}); remove it and give its embed command again."
        ) from error
