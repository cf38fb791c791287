"""A fetched package in the cache: the contents of its files in one blob, with an index.

Nothing is unpacked, so no member of an archive can leave its folder, whatever it is called; and thousands of small
files cost one file. Layout of a package's folder: `files.bin`, and `package.json` with name, version and
{member: [offset, size]}.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

from embodied_midtrain.artifacts import StageError, atomic_path, read_json, write_json

INDEX = "package.json"
BLOB = "files.bin"


class Package:
    """The files of one package, read in place."""

    def __init__(self, folder: Path) -> None:
        facts = read_json(folder / INDEX)
        self.name: str = facts["name"]
        self.version: str = facts["version"]
        self._files: dict[str, list[int]] = facts["files"]
        self._blob = folder / BLOB

    def names(self, pattern: str = "*") -> list[str]:
        """Members whose name fits the shell pattern (where * also takes in slashes), in order."""
        return sorted(name for name in self._files if fnmatchcase(name, pattern))

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def read(self, name: str) -> bytes:
        """The contents of one member."""
        offset, size = self._files[name]
        with self._blob.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def origin(self, name: str) -> str:
        """What `Sample.origin` says of a sample made from this member."""
        return f"{self.name} {self.version}: {name}"


def keep(folder: Path, name: str, version: str, members: Iterable[tuple[str, bytes]]) -> Package:
    """Write a package's folder, all of it or nothing.

    Raises:
        DiskFull: where it does not fit; nothing is left behind.
    """
    files: dict[str, list[int]] = {}
    offset = 0
    with atomic_path(folder) as fresh:
        fresh.mkdir()
        with (fresh / BLOB).open("wb") as blob:
            for member, data in members:
                blob.write(data)
                files[member] = [offset, len(data)]
                offset += len(data)
        write_json(fresh / INDEX, {"name": name, "version": version, "files": files})
    return Package(folder)


def tar_members(stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Regular files of a plain tar stream (links and devices are left out).

    Raises:
        StageError: where the archive is damaged.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isreg() else None
                if file is not None:
                    yield _plain(member.name), file.read()
    except (tarfile.TarError, EOFError) as error:
        raise StageError(f"the archive is damaged ({error}); give the command again to fetch it anew") from error


def zip_members(file: Path | IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Files of a zip archive, such as a wheel.

    Raises:
        StageError: where the archive is damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    yield _plain(member.filename), archive.read(member)
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError) as error:
        raise StageError(f"the archive is damaged ({error}); give the command again to fetch it anew") from error


def _plain(name: str) -> str:
    """Without "./" at the start, as Debian archives have it."""
    return str(PurePosixPath(name))
