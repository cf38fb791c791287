"""What a record holds for an image, as a `Picture`: a path, bytes, base64, or a record of these; a look at one."""

from __future__ import annotations

import base64
import binascii
import functools
import io
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from embodied_midtrain.samples import MAX_PIXELS, BadSample, Picture, decode_image
from embodied_midtrain.sources.places import is_url


@dataclass(frozen=True)
class ImageFolder:
    """Where paths of images start from; None where a source has none (its images are all inside).

    Raises:
        BadSample: by `picture`, on whatever is no image or none that may be read.
    """

    root: Path | None = None
    base64: bool = False
    """Whether plain text is an encoded image rather than a path."""

    def picture(self, value: Any) -> Picture:
        if isinstance(value, Picture):
            return value
        if isinstance(value, dict):
            # As `datasets` stores an image: bytes where they are embedded, else a path.
            inside = value.get("bytes")
            value = inside if inside is not None else value.get("path")
        if isinstance(value, (bytes, bytearray)):
            if not value:
                raise BadSample("empty image")
            return Picture(data=bytes(value))
        if not isinstance(value, str) or not value:
            raise BadSample("missing image", f"{type(value).__name__} in place of an image")
        if value.startswith("data:"):
            return _encoded(value.partition(",")[2])
        if self.base64:
            return _encoded(value)
        if is_url(value):
            raise BadSample("remote image", f"{value[:200]}: fetch the images into a folder first")
        return self._file(value)

    def _file(self, name: str) -> Picture:
        if self.root is None:
            raise BadSample("missing image", f"{name[:80]!r} is a path; give the folder of images")
        try:
            last = name.rpartition("/")[2]
            folder, inside = _folder(self.root, name[: len(name) - len(last)])
            path = folder / last
            odd = last in ("", ".", "..")
            if not inside and not odd:
                raise BadSample("image outside its folder", name)
            found = path.lstat()
            if odd or stat.S_ISLNK(found.st_mode):
                path = (self.root / name).resolve()
                if not path.is_relative_to(self.root):
                    raise BadSample("image outside its folder", name)
                found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise BadSample("missing image", name)
            if found.st_size == 0:
                raise BadSample("empty image", name)
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error, BadSample):
                raise
            # A name with a null byte, too long, or a loop of links.
            raise BadSample("missing image", f"{name[:80]!r}: {error}") from error
        return Picture(path=path)


@functools.lru_cache(maxsize=4096)
def _folder(root: Path, name: str) -> tuple[Path, bool]:
    """Where a folder of images really is, and whether that is inside. Kept, for looking through a path takes long."""
    path = (root / name).resolve()
    return path, path.is_relative_to(root)


def _encoded(text: str) -> Picture:
    try:
        return Picture(data=base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error) as error:
        raise BadSample("broken image", f"not base64: {error}") from error


def look(data: bytes, *, decode: bool = True) -> tuple[tuple[int, int], str]:
    """Width and height of an encoded image, and its format ("jpeg", "png").

    Args:
        decode: whether it is decoded whole, which finds a broken one, or its header is read only.

    Raises:
        BadSample: "empty image", "image too large" or "broken image".
    """
    if not data:
        raise BadSample("empty image")
    if decode:
        decode_image(data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            (width, height), kind = image.size, (image.format or "unknown").lower()
    except Image.DecompressionBombError as error:
        raise BadSample("image too large", str(error)) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise BadSample("broken image", "no known image format") from error
    if width * height > MAX_PIXELS:
        raise BadSample("image too large", f"{width} x {height}")
    return (width, height), kind
