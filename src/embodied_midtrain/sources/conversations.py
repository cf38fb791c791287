"""A user's image-text data: conversations in JSON or JSONL, as LLaVA and the OpenAI messages format write them.

A record: `{"id", "image": path or list of paths, "conversations": [{"from": "human", "value": "<image>\\n..."}, ...]}`
or `{"images": [...], "messages": [{"role": "user", "content": text or list of parts}, ...]}`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from embodied_midtrain.artifacts import Skips, StageError, file_sha256
from embodied_midtrain.samples import BadSample, Picture, Sample, Turn
from embodied_midtrain.sources.records import Broken, is_list, read_records

IMAGE_TAG = "<image>"
_ROLES: dict[str, Literal["user", "assistant"]] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
}


class ConversationPool:
    """The conversations of one file as a pool. Each pass reads the file anew; a bad record is noted once.

    Raises:
        StageError: where the file or the image folder cannot be used at all.
    """

    def __init__(self, path: Path, images: Path | None, skips: Skips) -> None:
        is_list(path)
        if images is not None and not images.is_dir():
            raise StageError(f"the image folder {images} does not exist")
        self.name = path.stem
        self._path = path
        self._images = (images or path.parent).resolve()
        self._skips = skips
        self._noted: set[int] = set()
        self._fingerprint = ""

    def __iter__(self) -> Iterator[Sample]:
        first: dict[tuple[str, str], int] = {}
        for number, record in enumerate(read_records(self._path)):
            try:
                if isinstance(record, Broken):
                    raise BadSample("broken JSON", record.why)
                sample = self._sample(record, number)
                if sample.key in first:
                    raise BadSample("duplicate id", f"{sample.id!r} is record {first[sample.key]} already")
                first[sample.key] = number
            except BadSample as error:
                if number not in self._noted:
                    self._noted.add(number)
                    self._skips.add(error.reason, f"{self._path.name} record {number}", error.detail)
                continue
            yield sample

    def fingerprint(self) -> str:
        """Of the file's bytes, and of size and time of every image that it names."""
        if not self._fingerprint:
            digest = hashlib.sha256(file_sha256(self._path).encode())
            for sample in self:
                for picture in sample.pictures:
                    if picture.path is not None:
                        stat = picture.path.stat()
                        digest.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    def _sample(self, record: Any, number: int) -> Sample:
        if not isinstance(record, dict):
            raise BadSample("not a record", f"{type(record).__name__} in place of an object")
        turns, inline, tags = _turns(record)
        named = _image_names(record) or inline
        if tags > len(named):
            raise BadSample("missing image", f"the text speaks of {tags} images, {len(named)} are given")
        sample = Sample(
            source=_text(record, "source", "dataset") or self.name,
            id=_text(record, "id") or f"{number:08d}",
            pictures=tuple(self._picture(name) for name in named),
            turns=turns,
            licence=_text(record, "licence", "license"),
            origin=f"{self._path.name} record {number}",
        )
        sample.check()
        return sample

    def _picture(self, name: str) -> Picture:
        if name.startswith("data:"):
            try:
                return Picture(data=base64.b64decode(name.split(",", 1)[1], validate=True))
            except (IndexError, binascii.Error) as error:
                raise BadSample("broken image", f"data URL: {error}") from error
        if re.match(r"[a-z]+://", name):
            raise BadSample("remote image", f"{name}: fetch the images into a folder first")
        try:
            path = (self._images / name).resolve()
            if not path.is_relative_to(self._images):
                raise BadSample("image outside its folder", name)
            if not path.is_file():
                raise BadSample("missing image", name)
            if path.stat().st_size == 0:
                raise BadSample("empty image", name)
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error, BadSample):
                raise
            # A name with a null byte, too long, or a loop of links.
            raise BadSample("missing image", f"{name[:80]!r}: {error}") from error
        return Picture(path=path)


def _text(record: dict[str, Any], *keys: str) -> str:
    """The first of these fields that holds a text or whole number."""
    values = (record.get(key) for key in keys)
    return next((str(v) for v in values if isinstance(v, (str, int)) and not isinstance(v, bool) and str(v)), "")


def _image_names(record: dict[str, Any]) -> list[str]:
    value = record.get("image", record.get("images"))
    names = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) and name for name in names):
        raise BadSample("broken record", "'image' is neither a path nor a list of paths")
    return names


def _turns(record: dict[str, Any]) -> tuple[tuple[Turn, ...], list[str], int]:
    """The turns, images given inside them, and how many images the text speaks of."""
    rows = record.get("conversations", record.get("messages"))
    if not isinstance(rows, list):
        raise BadSample("broken record", "no list 'conversations' or 'messages'")
    turns: list[Turn] = []
    inline: list[str] = []
    tags, system = 0, ""
    for row in rows:
        if not isinstance(row, dict):
            raise BadSample("broken record", "a turn is not an object")
        role, content = row.get("from", row.get("role")), row.get("value", row.get("content"))
        text, count = _content(content, inline)
        tags += count
        if role == "system":
            system = text
            continue
        if role not in _ROLES:
            raise BadSample("unknown role", repr(role))
        if system:
            text, system = f"{system}\n{text}", ""
        turns.append(Turn(_ROLES[role], text))
    return tuple(turns), inline, tags


def _content(content: Any, inline: list[str]) -> tuple[str, int]:
    """A turn's text without image tags, and the number of tags; images in parts are added to `inline`."""
    parts = content if isinstance(content, list) else [content]
    texts, tags = [], 0
    for part in parts:
        if isinstance(part, dict) and part.get("type") in ("image", "image_url"):
            name = part.get("image_url", part.get("image", part.get("path")))
            name = name.get("url") if isinstance(name, dict) else name
            tags += 1
            if isinstance(name, str) and name:
                inline.append(name)
            continue
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            raise BadSample("broken record", "a turn's content is neither text nor a list of text and image parts")
        texts.append(text.replace(IMAGE_TAG, "").strip())
        tags += text.count(IMAGE_TAG)
    return "\n".join(text for text in texts if text), tags
