"""Modelled household objects with name, room and size: Debian's sweethome3d-furniture."""

from __future__ import annotations

import io
import random
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.samples import BadSample, Sample, question
from embodied_midtrain.sources.registry.fetch import debian
from embodied_midtrain.sources.registry.images import reencode
from embodied_midtrain.sources.registry.labelled import article
from embodied_midtrain.sources.registry.source import Group

_CATALOGUE = "PluginFurnitureCatalog.properties"
_MAKERS = {"blend swap", "scopia", "scpts", "katorlegaz", "reallusion", "kator legaz"}


@dataclass(frozen=True)
class Object:
    """One object of a catalogue; sizes in centimetres."""

    id: str
    label: str
    room: str
    tags: tuple[str, ...]
    width: float
    depth: float
    height: float
    licence: str
    member: str
    icon: bytes


def objects(cache: Path) -> Iterator[Object]:
    """Every object of every catalogue of the package.

    Raises:
        SourceUnavailable: where the package cannot be had.
    """
    package = debian("sweethome3d-furniture", cache)
    for member in package.names("*.sh3f"):
        with zipfile.ZipFile(io.BytesIO(package.read(member))) as archive:
            text = archive.read(_CATALOGUE).decode("latin-1")
            licence = re.search(r"^license[ \t]*=[ \t]*(.*?)[ \t\r]*$", text, re.MULTILINE)
            entries: dict[str, dict[str, str]] = {}
            for key, number, value in re.findall(r"^(\w+)#(\d+)[ \t]*[=:][ \t]*(.*?)[ \t\r]*$", text, re.MULTILINE):
                entries.setdefault(number, {})[key] = value
            for number, entry in sorted(entries.items(), key=lambda pair: int(pair[0])):
                icon = entry.get("icon", "").lstrip("/")
                if icon not in archive.NameToInfo or "name" not in entry:
                    continue
                tags = [tag.strip().lower() for tag in entry.get("tags", "").split(",")]
                yield Object(
                    id=f"{Path(member).stem}/{number}",
                    label=entry["name"],
                    room=entry.get("category", "Miscellaneous"),
                    tags=tuple(tag for tag in tags if tag and tag not in _MAKERS),
                    width=float(entry.get("width", 0)),
                    depth=float(entry.get("depth", 0)),
                    height=float(entry.get("height", 0)),
                    licence=licence.group(1) if licence else Furniture.licence,
                    member=package.origin(f"{member}!/{icon}"),
                    icon=archive.read(icon),
                )


class Furniture:
    """Pictures of 3-D models: what it is, where it belongs, how large it is."""

    name = "sweethome3d"
    group: Group = "render"
    licence = "CC-BY-3.0, partly public domain"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        """See `RegistrySource.samples`."""
        rng = random.Random(f"{seed}:{self.name}")
        found = list(objects(cache))
        rng.shuffle(found)
        for thing in found[:limit]:
            asked, answered = _ask(thing, rng)
            try:
                image = reencode(thing.icon)
            except BadSample as error:
                skips.add(error.reason, f"{self.name}/{thing.id}", error.detail)
                continue
            yield question(self.name, thing.id, image, asked, answered, licence=thing.licence, origin=thing.member)


def _ask(thing: Object, rng: random.Random) -> tuple[str, str]:
    label = thing.label[:1].lower() + thing.label[1:]
    named = [room for room in (thing.room.lower(),) if room != "miscellaneous"]
    kinds = [
        (rng.choice(("What object is this?", "Name the object.", "What is shown here?")), f"{article(label)}."),
        (
            rng.choice(("Describe the object.", "Describe this 3-D model.")),
            f"A 3-D model of {article(label)}"
            + (f" ({', '.join(thing.tags[:2])})" if thing.tags else "")
            + f", about {thing.width:.0f} cm wide, {thing.depth:.0f} cm deep and {thing.height:.0f} cm high.",
        ),
    ]
    kinds += [
        (
            rng.choice(("Where would this usually be found?", "Which part of a home does it belong to?")),
            f"{thing.label}: {room}.",
        )
        for room in named
    ]
    asked, answered = rng.choice(kinds)
    return asked, answered[:1].upper() + answered[1:]
