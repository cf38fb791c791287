"""A folder of images with their captions beside them: NAME.txt or NAME.json for each, or one metadata file for all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.samples import BadSample
from embodied_midtrain.sources.files import FilePool, Record
from embodied_midtrain.sources.places import Place
from embodied_midtrain.sources.records import Broken, read_lines

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
METADATA = ("metadata.jsonl", "metadata.csv")
"""What `datasets` calls the one file for a folder: "file_name" and other columns."""
_SIDECARS = (".json", ".txt", ".caption")


class FolderPool(FilePool):
    """Images as a pool, in the order of their names; `files` are the folders that hold them."""

    def records(self, place: Place, *, lazily: bool = False) -> Iterator[Record]:
        folder = place.local
        if folder is None:
            raise StageError(f"{place.text} is elsewhere; a folder of images is read from this machine only.")
        metadata = next((folder / name for name in METADATA if (folder / name).is_file()), None)
        yield from _listed(metadata) if metadata is not None else _beside(folder)


def folders_of(root: Path) -> list[Place]:
    """Folders below that have images or a metadata file, in order."""
    found = []
    for path in [root, *sorted(p for p in root.rglob("*") if p.is_dir())]:
        if any(is_picture(entry) or entry.name in METADATA for entry in path.iterdir()):
            found.append(Place(str(path)))
    return found


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES and path.is_file()


def _listed(metadata: Path) -> Iterator[Record]:
    if metadata.suffix == ".jsonl":
        rows: Iterator[Any] = read_lines(Place(str(metadata)))
    else:
        text = metadata.read_text(encoding="utf-8-sig", errors="replace")
        rows = iter(csv.DictReader(io.StringIO(text)))
    for number, row in enumerate(rows):
        if isinstance(row, Broken):
            yield Record(f"line {number + 1}", BadSample("broken JSON", row.why))
        elif not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            yield Record(f"line {number + 1}", BadSample("broken record", "no file_name"))
        else:
            name = row.pop("file_name")
            yield Record(Path(name).stem, {"id": name, **row, "image": str(metadata.parent / name)})


def _beside(folder: Path) -> Iterator[Record]:
    for path in sorted(entry for entry in folder.iterdir() if is_picture(entry)):
        sidecar = next((path.with_suffix(end) for end in _SIDECARS if path.with_suffix(end).is_file()), None)
        if sidecar is None:
            yield Record(path.stem, BadSample("missing text", f"no {' or '.join(_SIDECARS)} beside {path.name}"))
            continue
        try:
            text = sidecar.read_text(encoding="utf-8-sig")
            facts = json.loads(text) if sidecar.suffix == ".json" else {"caption": text}
        except (OSError, ValueError, RecursionError) as error:
            yield Record(path.stem, BadSample("broken text", f"{sidecar.name}: {str(error)[:200]}"))
            continue
        if not isinstance(facts, dict):
            yield Record(path.stem, BadSample("broken record", f"{sidecar.name} holds no object"))
            continue
        yield Record(path.stem, {**facts, "id": path.name, "image": str(path)})
