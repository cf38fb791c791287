"""The neutral form of one image-text record, and the geometry in it.

Everything that enters the pool becomes a `Sample`; everything that reads the pool reads `Sample`s.
Geometry stays in [0, 1] here; a backbone's adapter renders it as that backbone's own coordinate text
(design rule 5), so that one pool serves backbones with different conventions.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

REGION_MARK = "<region>"
"""Stands in a turn's text where the turn's next `Region` is to be written."""

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded (decompression bombs)."""


class BadSample(ValueError):
    """One record cannot be used. `reason` is a short word that skips are counted by."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Region:
    """A point (x, y) or a box (x0, y0, x1, y1), in [0, 1], origin at the top left.

    Raises:
        BadSample: on a wrong count of values, or one that is not a number in [0, 1].
    """

    kind: Literal["point", "box"]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        wanted = 2 if self.kind == "point" else 4
        if len(self.values) != wanted:
            raise BadSample("bad geometry", f"a {self.kind} has {wanted} values, not {len(self.values)}")
        if not all(math.isfinite(v) and 0.0 <= v <= 1.0 for v in self.values):
            raise BadSample("bad geometry", f"{self.kind} {self.values} is outside [0, 1]")


@dataclass(frozen=True, slots=True)
class Turn:
    """One side of a conversation. `text` holds one `REGION_MARK` for each of `regions`, in order."""

    role: Literal["user", "assistant"]
    text: str
    regions: tuple[Region, ...] = ()

    def __post_init__(self) -> None:
        marks = self.text.count(REGION_MARK)
        if marks != len(self.regions):
            raise BadSample("bad geometry", f"{marks} {REGION_MARK} marks for {len(self.regions)} regions")

    def written(self, write: Callable[[Region], str]) -> str:
        """The text, each mark replaced by what `write` makes of its region."""
        parts = self.text.split(REGION_MARK)
        return parts[0] + "".join(write(r) + p for r, p in zip(self.regions, parts[1:], strict=True))


class Stored(Protocol):
    """Bytes that lie inside a larger file; can be sent to another process."""

    def read(self) -> bytes:
        """The bytes.

        Raises:
            BadSample: where they cannot be read any more.
        """
        ...


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded image: bytes at hand, or a file or a part of one that is read when it is needed."""

    data: bytes | None = field(default=None, repr=False)
    path: Path | None = None
    stored: Stored | None = None

    def read(self) -> bytes:
        """The encoded bytes.

        Raises:
            BadSample: where the file is missing or cannot be read.
        """
        if self.data is not None:
            return self.data
        if self.stored is not None:
            return self.stored.read()
        if self.path is None:
            raise BadSample("missing image", "neither bytes nor a path")
        try:
            with self.path.open("rb", buffering=0) as file:
                return file.readall()
        except FileNotFoundError as error:
            raise BadSample("missing image", str(self.path)) from error
        except OSError as error:
            raise BadSample("unreadable image", f"{self.path}: {error.strerror}") from error

    def decode(self) -> Image.Image:
        """The whole image, decoded, as RGB.

        Raises:
            BadSample: "empty image", "image too large" or "broken image".
        """
        return decode_image(self.read())


def decode_image(data: bytes) -> Image.Image:
    """Decode image bytes to RGB, transparent parts on white; the first frame of an animation; 16 bits as their upper 8.

    Raises:
        BadSample: "empty image", "image too large", "unknown range" or "broken image".
    """
    if not data:
        raise BadSample("empty image")
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_PIXELS:
            raise BadSample("image too large", f"{image.width} x {image.height}")
        image.load()
        if image.mode == "F" or image.mode.startswith("I"):
            return _eight_bits(image).convert("RGB")
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            ground = Image.new("RGBA", rgba.size, "white")
            return Image.alpha_composite(ground, rgba).convert("RGB")
        # Its own conversion would copy what is RGB already.
        return image if image.mode == "RGB" else image.convert("RGB")
    except BadSample:
        raise
    except Image.DecompressionBombError as error:
        raise BadSample("image too large", str(error)) from error
    except UnidentifiedImageError as error:
        # Pillow's own words name an address in memory, which would make equal runs differ.
        raise BadSample("broken image", "no known image format") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
        # Pillow's decoders raise all of these on damaged files.
        raise BadSample("broken image", str(error)) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits in 8: Pillow's own conversion cuts off at 255, which leaves a white picture."""
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.size == 0 or values.min() < 0 or values.max() >= 1 << 16:
        raise BadSample("unknown range", f"mode {image.mode}: it does not say which number is white")
    return Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))


@dataclass(frozen=True, slots=True)
class Sample:
    """One image-text record of the pool.

    Attributes:
        source: where it comes from, such as "openclipart"; with `id` it names the sample everywhere.
        id: unique within the source.
        pictures: zero or more encoded images, in the order of their mention.
        turns: the conversation; a caption is a user turn that asks for one and an assistant turn.
        licence: SPDX name where there is one, else a short phrase.
        origin: where it can be found again: package, file, generator.
    """

    source: str
    id: str
    pictures: tuple[Picture, ...]
    turns: tuple[Turn, ...]
    licence: str = ""
    origin: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return (self.source, self.id)

    @property
    def answer(self) -> str:
        """All assistant text, joined: what a model is trained to say."""
        return "\n".join(turn.text for turn in self.turns if turn.role == "assistant")

    def seen(self) -> str:
        """A digest of the pictures, the same for samples about the same ones; of one without any, its own name.

        Raises:
            BadSample: where a picture cannot be read.
        """
        if not self.pictures:
            return "/".join(self.key)
        return hashlib.sha1(b"".join(picture.read() for picture in self.pictures)).hexdigest()

    def check(self) -> None:
        """Raise `BadSample` where the record has nothing to learn from."""
        if not self.source or not self.id:
            raise BadSample("missing id", f"source {self.source!r}, id {self.id!r}")
        if not any(turn.role == "assistant" and turn.text.strip() for turn in self.turns):
            raise BadSample("empty text", "no assistant turn with text")


class Found(Protocol):
    """Samples by key."""

    def __contains__(self, key: tuple[str, str], /) -> bool: ...

    def __getitem__(self, key: tuple[str, str], /) -> Sample: ...


class Pool(Protocol):
    """A stream of samples that can be opened again and always gives the same order."""

    name: str

    def __iter__(self) -> Iterator[Sample]: ...

    def fingerprint(self) -> str:
        """A short text that changes when the content does."""
        ...

    def find(self, keys: Collection[tuple[str, str]]) -> Found:
        """These samples, as far as they are there."""
        ...


def caption(
    source: str,
    id: str,
    picture: Picture,
    text: str,
    *,
    prompt: str = "Describe the image.",
    licence: str = "",
    origin: str = "",
) -> Sample:
    """A captioned image as a two-turn conversation."""
    return question(source, id, picture, prompt, text, licence=licence, origin=origin)


def question(
    source: str,
    id: str,
    picture: Picture,
    asked: str,
    answered: str,
    *,
    asked_regions: tuple[Region, ...] = (),
    answered_regions: tuple[Region, ...] = (),
    licence: str = "",
    origin: str = "",
) -> Sample:
    """One question about one image, with its answer."""
    turns = (Turn("user", asked, asked_regions), Turn("assistant", answered, answered_regions))
    return Sample(source, id, (picture,), turns, licence, origin)


def turns_to_json(turns: tuple[Turn, ...]) -> str:
    """Turns as one line of JSON, for a table column."""
    rows = [
        {"role": t.role, "text": t.text, **({"regions": [[r.kind, *r.values] for r in t.regions]} if t.regions else {})}
        for t in turns
    ]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def turns_from_json(text: str) -> tuple[Turn, ...]:
    """The inverse of `turns_to_json`.

    Raises:
        BadSample: where the text is not such a line.
    """
    try:
        rows: list[dict[str, Any]] = json.loads(text)
        return tuple(
            Turn(r["role"], r["text"], tuple(Region(g[0], tuple(g[1:])) for g in r.get("regions", ()))) for r in rows
        )
    except (json.JSONDecodeError, KeyError, TypeError, IndexError) as error:
        raise BadSample("broken turns", str(error)) from error
