"""Parquet that `datasets.load_dataset(folder)` opens: Image features, and chat messages of text and image parts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from embodied_midtrain.artifacts import StageRun, write_atomic
from embodied_midtrain.sources.export.form import Form, Writers
from embodied_midtrain.sources.export.row import Row
from embodied_midtrain.sources.formats import Kind

_PART = pa.struct([("type", pa.string()), ("text", pa.string())])
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.list_(_PART))])
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_TEXT: dict[str, Any] = {"dtype": "string", "_type": "Value"}
_FEATURES: dict[str, Any] = {
    "images": {"feature": {"_type": "Image"}, "_type": "List"},
    "messages": {
        "feature": {"role": _TEXT, "content": {"feature": {"type": _TEXT, "text": _TEXT}, "_type": "List"}},
        "_type": "List",
    },
    **dict.fromkeys(("id", "source", "licence", "origin", "reason"), _TEXT),
    "score": {"dtype": "float32", "_type": "Value"},
    "rank": {"dtype": "int64", "_type": "Value"},
}
SCHEMA = pa.schema(
    [
        ("images", pa.list_(_IMAGE)),
        ("messages", pa.list_(_MESSAGE)),
        *((name, pa.string()) for name in ("id", "source", "licence", "origin", "reason")),
        ("score", pa.float32()),
        ("rank", pa.int64()),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)
# Encoded images do not compress any further.
_COMPRESSION = {name: "zstd" for name in SCHEMA.names if name not in ("images", "messages")} | {
    "images.list.element.bytes": "none",
    "images.list.element.path": "zstd",
    "messages.list.element.role": "zstd",
    "messages.list.element.content.list.element.type": "zstd",
    "messages.list.element.content.list.element.text": "zstd",
}
_GROUP = 100
"""Rows of a row group, as `datasets` writes pictures: what one random access reads."""


class ParquetForm(Form):
    """One file a part in `data/`, and the README by which `datasets` takes these files and no others."""

    kind: ClassVar[Kind] = "parquet"
    files: ClassVar[str] = "data/*.parquet"

    def writers(self, part: int, rows: Sequence[Row]) -> Writers:
        return {f"data/train-{part:05d}.parquet": lambda path: _write(path, rows)}

    def finish(self, run: StageRun, parts: int) -> None:
        files = {"split": "train", "path": self.files}
        card = {"configs": [{"config_name": "default", "data_files": [files]}]}
        write_atomic(run.file("README.md"), f"---\n{json.dumps(card)}\n---\n# {self.name}\n")

    def hint(self, out: Path) -> str:
        return f'datasets: load_dataset("{out}", split="train") (images, messages)'


def _write(path: Path, rows: Sequence[Row]) -> None:
    with pq.ParquetWriter(path, SCHEMA, compression=_COMPRESSION, write_statistics=False) as writer:
        for at in range(0, len(rows), _GROUP):
            table = pa.Table.from_pylist([_record(row) for row in rows[at : at + _GROUP]], SCHEMA)
            writer.write_table(table, row_group_size=_GROUP)


def _record(row: Row) -> dict[str, Any]:
    messages = []
    for number, (role, text) in enumerate(row.turns):
        pictures: list[dict[str, Any]] = [{"type": "image"}] * (len(row.pictures) if number == 0 else 0)
        messages.append({"role": role, "content": [*pictures, {"type": "text", "text": text}]})
    images = [{"bytes": picture.data, "path": f"{n}.{picture.ending}"} for n, picture in enumerate(row.pictures)]
    return {"images": images, "messages": messages, **row.facts}
