"""Taking over what an older store holds: a pool that grew by a source computes only that one.

Windows never cross from one source to the next (`features.items`), so that the result is what a whole run would give,
byte for byte. A source counts as unchanged where its own fingerprint is the same.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embodied_midtrain.artifacts import Artifact, Skips, StageError, StageRun, file_sha256, read_json
from embodied_midtrain.features.items import Stretch, end_key, part_key


@dataclass
class Reused:
    """Names of a pool's sources by what became of them, against an older store."""

    taken: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    def summary(self) -> str:
        groups = {"taken over": self.taken, "changed": self.changed, "new": self.new, "not in the pool": self.gone}
        return "; ".join(f"{name}: {', '.join(names)}" for name, names in groups.items() if names)


def take_over(run: StageRun, old: Path, stretches: Sequence[Stretch]) -> Reused:
    """Commit the parts of all sources that `old` has as they are now.

    Raises:
        StageError: where `old` was made in another way, or is damaged.
    """
    store = Artifact.open(old, "embed")
    _refuse_other_ways(store, run.manifest)
    ends = _ends(store)
    found = Reused(gone=sorted({str(end["name"]) for end in ends.values()} - {one.name for one in stretches}))
    known = {str(end["name"]) for end in ends.values()}
    for number, stretch in enumerate(stretches):
        before = next((n for n, end in ends.items() if end["fingerprint"] == stretch.fingerprint), None)
        if before is None:
            (found.changed if stretch.name in known else found.new).append(stretch.name)
            continue
        found.taken.append(stretch.name)
        for window in range(ends[before]["parts"]):
            _copy_part(run, store, part_key(before, window), part_key(number, window))
        _copy_part(run, store, end_key(before), end_key(number))
    return found


def _refuse_other_ways(store: Artifact, wanted: dict[str, Any]) -> None:
    differs = [
        f"{group} {key}: {old.get(key)!r} there, {new.get(key)!r} now"
        for group in ("config", "inputs")
        for old, new in [(store.manifest[group], wanted[group])]
        for key in sorted({*old, *new})
        # Of inputs the pool may differ; that one store is of a pool and the other of a target shows all the same. Older
        # stores do not say that they have no `layers`.
        if (key not in old or key not in new if key in ("pool", "target") else old.get(key, []) != new.get(key, []))
    ]
    if differs:
        raise StageError("\n  ".join([f"{store.path} was made in another way and cannot be extended:", *differs]))


def _ends(store: Artifact) -> dict[int, dict[str, Any]]:
    """The record of every source of a store, by its number."""
    paths = sorted((store.path / "parts").glob("*-end.json"))
    if not paths:
        raise StageError(f"{store.path} does not say which of its rows are of which source; embed it again.")
    return {int(path.name.split("-")[0]): read_json(path) for path in paths}


def _copy_part(run: StageRun, store: Artifact, old: str, new: str) -> None:
    if run.part(new) is not None:
        return
    record = read_json(store.path / "parts" / f"{old}.json")
    facts = {key: value for key, value in record.items() if key not in ("files", "skipped")}
    names = {f"shard-{new}.parquet": store.file(name) for name in record["files"]}
    for path in names.values():
        if not path.is_file() or file_sha256(path) != store.manifest["files"].get(path.name):
            raise StageError(f"{path} is missing or not as it was written; embed {store.path} again.")

    def linked(path: Path) -> Any:
        return lambda to: _link(path, to)

    writers = {name: linked(path) for name, path in names.items()}
    run.commit_part(new, facts, writers, Skips(record["skipped"]))


def _link(path: Path, to: Path) -> None:
    # Shards are never written twice, so that two stores may share one file; not every file system lets them.
    with contextlib.suppress(OSError):
        os.link(path, to)
        return
    shutil.copyfile(path, to)
