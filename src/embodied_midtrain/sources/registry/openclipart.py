"""Clip art with title and keywords: Debian's openclipart-png (images) and openclipart-svg (metadata). Public domain."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from html import unescape
from pathlib import Path

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.samples import Sample
from embodied_midtrain.sources.registry.fetch import debian
from embodied_midtrain.sources.registry.labelled import Item, article, pool_samples
from embodied_midtrain.sources.registry.source import Group

_SAID_OF_A_COLLECTION = re.compile(r"part of the|clip ?art|theme|collection|various|untitled|symbols$|@|http", re.I)
_KEYWORDS_OF_NO_USE = {"", "hash", "clip_art", "clipart", "unsorted", "special", "externalsource", "work", "icons"}
_METADATA_WITHIN = 200_000
"""Bytes; the metadata stand at the head of a drawing, which may be many MB long."""


def items(cache: Path) -> Iterator[Item]:
    """Every clip art with a title of its own.

    Icon themes and the 1,400 generated stars are left out: their titles name the theme, not the picture.

    Raises:
        SourceUnavailable: where a package cannot be had.
    """
    png, svg = debian("openclipart-png", cache), debian("openclipart-svg", cache)
    drawings = {_stem(name, "/svg/"): name for name in svg.names("*/openclipart/svg/*.svg")}
    found = []
    for member in png.names("*/openclipart/png/*.png"):
        name = _stem(member, "/png/")
        if name in drawings and "-theme/" not in name and not name.startswith("shapes/stars/"):
            head = svg.read(drawings[name])[:_METADATA_WITHIN].decode("utf-8", "replace")
            found.append((name, member, *_metadata(head)))
    times = Counter(title for _, _, title, _ in found)
    for name, member, title, words in found:
        # A title on many pictures, or one that says nothing of this one: the file name is better.
        general = times[title] > 3 or len(title) < 3 or _SAID_OF_A_COLLECTION.search(title)
        label = _from_file_name(name) if general else re.sub(r"[\s_#-]*\d+$", "", title)
        if label:
            yield Item(name, member, label, words, png, lambda member=member: png.read(member))  # type: ignore[misc]


def _stem(member: str, folder: str) -> str:
    return member.split(folder, 1)[1].rsplit(".", 1)[0]


def _metadata(head: str) -> tuple[str, tuple[str, ...]]:
    """Title and keywords from a drawing's RDF block. By pattern, since many of the drawings are not valid XML."""
    block = re.search(r"<metadata.*?</metadata>", head, re.DOTALL)
    text = block.group(0) if block else ""
    title = re.search(r"<dc:title>(.*?)</dc:title>", text, re.DOTALL)
    words = (_clean(word) for word in re.findall(r"<rdf:li>(.*?)</rdf:li>", text, re.DOTALL))
    used = dict.fromkeys(word for word in words if word.lower() not in _KEYWORDS_OF_NO_USE and len(word) < 30)
    return (_clean(title.group(1)) if title else "")[:80], tuple(used)[:6]


def _clean(text: str) -> str:
    return " ".join(re.sub(r"[_\s]+", " ", unescape(text)).split())


def _from_file_name(name: str) -> str:
    """ "animals/bugs/blue_bee_01" -> "blue bee"."""
    words = re.sub(r"[^A-Za-z]+", " ", name.rsplit("/", 1)[-1]).split()
    return " ".join(word for word in words if len(word) > 1)


class OpenClipart:
    """Clip art, captioned with title and keywords."""

    name = "openclipart"
    group: Group = "general"
    licence = "public domain"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        """See `RegistrySource.samples`."""
        return pool_samples(self.name, items(cache), limit, seed, skips, licence=self.licence, say=_say)


def _say(item: Item, rng: random.Random) -> str:
    known = item.label.lower()
    words = [word for word in item.words if word.lower() not in known][:4]
    kind = item.name.split("/")[0].replace("_", " ")
    tail = f", {', '.join(words)}" if words else f", {kind}"
    return rng.choice(
        (
            f"{item.label}{tail}.",
            f"Clip art: {item.label}{tail}.",
            f"A drawing of {article(item.label)}. Keywords: {', '.join(words) or kind}.",
            f"{item.label}. It belongs to {kind}.",
        )
    )
