"""What LLaVA's, ShareGPT's and Qwen-VL's forms share: one JSON list of records, image files in a folder."""

from __future__ import annotations

import itertools
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from embodied_midtrain.artifacts import PARTS, StageRun, atomic_path
from embodied_midtrain.sources.export.form import Form, Writers, bytes_writer
from embodied_midtrain.sources.export.row import Row
from embodied_midtrain.sources.formats import Kind

DATA = "data.json"


class ConversationForm(Form):
    """`data.json`, one record a line inside the list, and `images/`."""

    kind: ClassVar[Kind] = "conversations"
    files: ClassVar[str] = DATA

    @abstractmethod
    def record(self, row: Row) -> dict[str, Any]:
        """One element of the list."""

    def writers(self, part: int, rows: Sequence[Row]) -> Writers:
        lines = "".join(json.dumps(self.record(row), ensure_ascii=False) + "\n" for row in rows)
        pictures = {picture.name: bytes_writer(picture.data) for row in rows for picture in row.pictures}
        return {**pictures, _name(part): bytes_writer(lines.encode())}

    def first(self, lines: Iterable[str]) -> int:
        """Number of the record that is put first."""
        return 0

    def finish(self, run: StageRun, parts: int) -> None:
        first = self.first(_lines(run, parts))
        with atomic_path(run.file(DATA)) as path, path.open("w", encoding="utf-8", newline="\n") as out:
            out.write("[\n" + next(itertools.islice(_lines(run, parts), first, None)))
            for number, line in enumerate(_lines(run, parts)):
                if number != first:
                    out.write(",\n" + line)
            out.write("\n]\n")


def _lines(run: StageRun, parts: int) -> Iterator[str]:
    for part in range(parts):
        with run.file(_name(part)).open(encoding="utf-8", newline="\n") as file:
            for line in file:
                yield line.rstrip("\n")


def _name(part: int) -> str:
    return f"{PARTS}/records-{part:05d}.jsonl"


def drop_lines(folder: Path) -> None:
    """Remove the parts' records, once they stand in the list."""
    for path in (folder / PARTS).glob("records-*.jsonl"):
        path.unlink()
