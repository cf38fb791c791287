"""WebDataset shards: KEY.jpg or KEY.png, KEY.json (the conversation and the facts), KEY.txt (the answers alone)."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from embodied_midtrain.sources.export.form import Form, Writers
from embodied_midtrain.sources.export.row import Row
from embodied_midtrain.sources.formats import Kind


class WebDatasetForm(Form):
    """One shard a part. Several images are KEY.0.jpg, KEY.1.jpg, and so on; the key is the row's number."""

    kind: ClassVar[Kind] = "webdataset"
    files: ClassVar[str] = "*.tar"

    def writers(self, part: int, rows: Sequence[Row]) -> Writers:
        return {f"{part:05d}.tar": lambda path: _write(path, rows)}

    def hint(self, out: Path) -> str:
        shards = len(list(out.glob("*.tar")))
        pattern = f"{{00000..{shards - 1:05d}}}" if shards > 1 else "00000"
        return (
            f'webdataset: wds.WebDataset("{out}/{pattern}.tar", shardshuffle={shards}).shuffle(1000) '
            "(samples are in the pool's order)"
        )


def _write(path: Path, rows: Sequence[Row]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for row in rows:
            for name, data in _members(row):
                # Nothing of this machine or hour: equal exports are equal bytes.
                info = tarfile.TarInfo(f"{row.number:09d}.{name}")
                info.size, info.mode = len(data), 0o644
                archive.addfile(info, io.BytesIO(data))


def _members(row: Row) -> Iterator[tuple[str, bytes]]:
    for number, picture in enumerate(row.pictures):
        yield (picture.ending if len(row.pictures) == 1 else f"{number}.{picture.ending}"), picture.data
    record = {**row.facts, "conversations": row.conversation()}
    yield "json", json.dumps(record, ensure_ascii=False).encode()
    yield "txt", "\n".join(text for role, text in row.turns if role == "assistant").encode()
