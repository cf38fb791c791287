"""Files by path, pattern or URL: what every reader of a pool or of robot data opens.

A local file is opened as it is; anything with "://" goes through fsspec (s3, gs, hf, http, memory, ...), which is
imported only then.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from embodied_midtrain.artifacts import StageError

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST = 1_000_000
"""Files that one pattern may name."""


def _fsspec() -> Any:
    import fsspec

    return fsspec


def is_url(text: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]*://", text) is not None


def absolute(text: str, start: Path | None = None) -> str:
    """The same place from everywhere; a URL as it is.

    Args:
        start: what a relative path starts from; by default the working folder.
    """
    return text if is_url(text) else str((start or Path.cwd()) / text)


@dataclass(frozen=True, order=True)
class Place:
    """One file, here or elsewhere."""

    text: str

    @property
    def local(self) -> Path | None:
        return None if is_url(self.text) else Path(self.text)

    @property
    def name(self) -> str:
        return PurePosixPath(self.text).name

    @property
    def stem(self) -> str:
        """The name up to its first dot."""
        return self.name.split(".", 1)[0]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.text).suffix

    def open(self) -> IO[bytes]:
        """For reading bytes.

        Raises:
            StageError: where it is missing or cannot be read.
        """
        local = self.local
        try:
            if local is not None:
                return local.open("rb")
            opened: IO[bytes] = _fsspec().open(self.text, "rb").open()
            return opened
        except FileNotFoundError as error:
            raise StageError(f"there is no file {self.text}") from error
        except ImportError as error:
            raise StageError(f"{self.text} needs a package that is missing: {error}") from error
        except (OSError, ValueError) as error:
            raise StageError(f"{self.text} cannot be read: {error}") from error

    def stamp(self) -> str:
        """Name, size and time (or the store's own mark): changes when the file does, without reading it."""
        local = self.local
        try:
            if local is not None:
                stat = local.stat()
                return f"{local.name} {stat.st_size} {stat.st_mtime_ns}"
            system, path = _fsspec().core.url_to_fs(self.text)
            facts: dict[str, Any] = system.info(path)
        except OSError as error:
            raise StageError(f"{self.text} cannot be read: {error}") from error
        marks = [str(facts[key]) for key in ("ETag", "etag", "mtime", "LastModified", "last_modified") if key in facts]
        return f"{self.name} {facts.get('size')} {' '.join(marks)}"


def is_folder(text: str) -> bool:
    if not is_url(text):
        return Path(text).is_dir()
    system, path = _fsspec().core.url_to_fs(text)
    return bool(system.isdir(path))


def places(pattern: str, endings: Sequence[str] = ()) -> list[Place]:
    """The files that a path, pattern or folder names, in alphabetical order.

    Args:
        pattern: a file, a folder, a pattern with * or **, or one with {00000..00099}; local or a URL.
        endings: of the files that count in a folder, such as ".tar".

    Raises:
        StageError: where there is none.
    """
    found = sorted({place for one in _unbraced(pattern) for place in _matches(one, endings)})
    if not found:
        wanted = f" with {' or '.join(endings)} files" if endings else ""
        raise StageError(f"there is nothing at {pattern}: give a file, a pattern, or a folder{wanted}.")
    return found


def _unbraced(pattern: str) -> Iterator[str]:
    braces = _BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    first, last = int(braces[1]), int(braces[2])
    if not 0 <= last - first < _MOST:
        raise StageError(f"{pattern} names {last - first + 1} files; the second number must not be below the first.")
    for number in range(first, last + 1):
        yield from _unbraced(f"{pattern[: braces.start()]}{number:0{len(braces[1])}d}{pattern[braces.end() :]}")


def _matches(pattern: str, endings: Sequence[str]) -> Iterator[Place]:
    if is_folder(pattern):
        pattern = f"{pattern.rstrip('/')}/**"
    elif not glob.has_magic(pattern):
        if is_url(pattern) or Path(pattern).is_file():
            yield Place(pattern)
        return
    else:
        endings = ()
    if is_url(pattern):
        system, path = _fsspec().core.url_to_fs(pattern)
        found = [
            system.unstrip_protocol(name)
            for name, facts in system.glob(path, detail=True).items()
            if facts.get("type") == "file"
        ]
    else:
        # Path.glob takes no absolute patterns.
        found = [name for name in glob.iglob(pattern, recursive=True) if Path(name).is_file()]  # noqa: PTH207
    for name in found:
        if not endings or name.endswith(tuple(endings)):
            yield Place(name)
