"""WebDataset shards (tar), as img2dataset writes them: the members of one key are one sample.

Read in place: of a local, uncompressed shard only the headers and texts are read, a picture when it is decoded.
Nothing is unpacked, so that a member's name never becomes a path.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import tarfile
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from embodied_midtrain.samples import BadSample, Picture
from embodied_midtrain.sources.fields import Fields
from embodied_midtrain.sources.files import FilePool, Record
from embodied_midtrain.sources.places import Place

ENDINGS = (".tar", ".tar.gz", ".tgz")
_PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
_TEXTS = ("json", "txt", "caption", "text")
_LARGEST_TEXT = 16 << 20
_LARGEST_PICTURE = 512 << 20
_NUMBERED = re.compile(r"\d{1,3}\.(" + "|".join(_PICTURES) + ")")
"""Endings of the pictures of a sample that has several: KEY.0.jpg, KEY.1.jpg."""
_CONVERSATION = Fields().conversation
KEY = "__key__"


@dataclass(frozen=True)
class TarMember:
    """The bytes of one member of a local tar file."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        try:
            stat = os.stat(self.path)  # noqa: PTH116
            file = _opened(self.path, stat.st_ino, stat.st_mtime_ns)
            data = os.pread(file.fileno(), self.size, self.offset)
        except OSError as error:
            raise BadSample("unreadable image", f"{self.path}: {error.strerror}") from error
        if len(data) < self.size:
            raise BadSample("truncated tar", f"{self.path} ends within the image")
        return data


@functools.lru_cache(maxsize=16)
def _opened(path: Path, number: int, changed: int) -> IO[bytes]:
    """A shard that stays open, for its pictures are read one by one; closed when it is forgotten."""
    return path.open("rb", buffering=0)


class WebDatasetPool(FilePool):
    """Shards as a pool. A broken member costs its sample; a broken archive costs what comes after the break."""

    def records(self, place: Place, *, lazily: bool = False) -> Iterator[Record]:
        key: str | None = None
        group = _Group()
        with place.open() as file, contextlib.closing(_members(place, file)) as members:
            while True:
                try:
                    found = next(members, None)
                except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
                    # What was gathered last may itself be cut off.
                    if key is not None:
                        yield Record(key, BadSample("truncated tar", "the archive breaks off within this sample"))
                    yield Record("(the rest)", BadSample("truncated tar", str(error)[:200]))
                    return
                if found is not None and found.key == key:
                    group.add(found)
                    continue
                if key is not None and group.parts:
                    yield Record(key, group.record(key))
                if found is None:
                    return
                key, group = found.key, _Group()
                group.add(found)


@dataclass(frozen=True)
class _Member:
    key: str
    ending: str
    content: Picture | bytes | BadSample


class _Group:
    """The members of one key."""

    def __init__(self) -> None:
        self.parts: dict[str, Picture | bytes] = {}
        self.fault: BadSample | None = None

    def add(self, member: _Member) -> None:
        if isinstance(member.content, BadSample):
            self.fault = self.fault or member.content
            self.parts.setdefault(member.ending, b"")
        elif member.ending in self.parts:
            self.fault = self.fault or BadSample("duplicate member", f"two of {member.key}.{member.ending}")
        else:
            self.parts[member.ending] = member.content

    def record(self, key: str) -> dict[str, Any] | BadSample:
        if self.fault is not None:
            return self.fault
        record: dict[str, Any] = {KEY: key}
        pictures = []
        for ending, content in self.parts.items():
            if isinstance(content, Picture):
                pictures.append(content)
            elif ending == "json":
                try:
                    facts = json.loads(content)
                except (ValueError, RecursionError) as error:
                    return BadSample("broken JSON", str(error)[:200])
                if not isinstance(facts, dict):
                    return BadSample("broken record", "the JSON member holds no object")
                record = {**facts, **record}
            else:
                try:
                    record[ending] = content.decode("utf-8")
                except UnicodeDecodeError as error:
                    return BadSample("broken text", str(error))
        if len(pictures) > 1 and any(ending in _PICTURES for ending in self.parts):
            return BadSample("broken record", f"{len(pictures)} pictures under one key")
        # A conversation says itself how many images it speaks of; a caption without one is a download that failed.
        if not pictures and not any(name in record for name in _CONVERSATION):
            return BadSample("missing image", f"no picture beside {', '.join(self.parts)}")
        # The key names it uniquely in its shard; what img2dataset calls "key" in its JSON is the same.
        record.pop("id", None)
        return {**record, "image": pictures}


class _Header(tarfile.TarInfo):
    """A header that says so where an archive breaks off: tarfile takes a damaged header for a proper end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _members(place: Place, file: IO[bytes]) -> Generator[_Member, None, None]:
    """The members that matter, in order.

    Raises:
        tarfile.TarError, EOFError, OSError, ValueError, zlib.error: where the archive breaks off, or is none.
    """
    local = place.local if place.text.endswith(".tar") else None
    with tarfile.open(fileobj=file, mode="r:" if local else "r|*", tarinfo=_Header) as archive:
        for info in archive:
            # Else it keeps a list of all members.
            archive.members = []  # type: ignore[attr-defined]
            folder, _, name = info.name.rpartition("/")
            stem, _, ending = name.partition(".")
            ending = ending.lower()
            if not stem or info.isdir() or not (ending in (*_PICTURES, *_TEXTS) or _NUMBERED.fullmatch(ending)):
                continue
            key = f"{folder}/{stem}" if folder else stem
            yield _Member(key, ending, _content(archive, info, local, ending))


def _content(
    archive: tarfile.TarFile, info: tarfile.TarInfo, local: Path | None, ending: str
) -> Picture | bytes | BadSample:
    if not info.isreg() or info.issparse():
        return BadSample("not a file", f"{info.name} is a link, a device or sparse")
    if info.name.startswith("/") or ".." in info.name.split("/"):
        return BadSample("unsafe name", info.name[:200])
    picture = ending not in _TEXTS
    if info.size > (_LARGEST_PICTURE if picture else _LARGEST_TEXT):
        return BadSample("member too large", f"{info.name}: {info.size} bytes")
    if picture and info.size == 0:
        return BadSample("empty image", info.name)
    if picture and local is not None:
        return Picture(stored=TarMember(local, info.offset_data, info.size))
    if local is not None and archive.fileobj is not None:
        # The archive itself finds its place again before each header.
        archive.fileobj.seek(info.offset_data)
        data = archive.fileobj.read(info.size)
    else:
        opened = archive.extractfile(info)
        data = opened.read() if opened is not None else b""
    if len(data) < info.size:
        raise tarfile.ReadError("the archive breaks off within a member")
    return Picture(data=data) if picture else data
