"""What a form of export is: how the rows of one part become files, and what ties the parts together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from embodied_midtrain.artifacts import StageRun
from embodied_midtrain.sources.export.coordinates import Coordinates
from embodied_midtrain.sources.export.row import Row
from embodied_midtrain.sources.formats import Kind

Writers = Mapping[str, Callable[[Path], None]]
"""Path below the export's folder -> what writes it."""


class Form(ABC):
    """One tool's form.

    Attributes:
        coordinates: how geometry is written when nothing else is asked for.
        reserved: words that the tool takes for images (or videos, sounds) wherever they stand.
        kind, files: as what, and from which files, `emt` itself reads it back.
    """

    coordinates: ClassVar[Coordinates] = "unit"
    reserved: ClassVar[tuple[str, ...]] = ("<image>",)
    kind: ClassVar[Kind]
    files: ClassVar[str]

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def writers(self, part: int, rows: Sequence[Row]) -> Writers:
        """The files of one part."""

    def finish(self, run: StageRun, parts: int) -> None:
        """Write what all parts have in common."""
        return

    @abstractmethod
    def hint(self, out: Path) -> str:
        """How the tool is given the folder, in a line or two."""


def bytes_writer(data: bytes) -> Callable[[Path], None]:
    return lambda path: _write(path, data)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
