"""Photos and paintings with their subject: Debian's gcompris-qt-data, whose labels are file and folder names."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.samples import Sample
from embodied_midtrain.sources.registry.fetch import debian
from embodied_midtrain.sources.registry.labelled import Item, article, pool_samples
from embodied_midtrain.sources.registry.rcc import read_rcc
from embodied_midtrain.sources.registry.source import Group

# The activities whose image names say what is seen; in others they are "f01" or a piece of a puzzle.
_ACTIVITIES = (
    "categorization",
    "erase",
    "explore_farm_animals",
    "explore_monuments",
    "explore_world_animals",
    "lang",
    "solar_system",
)
_PLACES = {"usa": "United States", "egypt": "Egypt", "india": "India", "france": "France", "germany": "Germany"}
# Not things but colours, counts and kinds, drawn in ways that the word alone does not tell.
_KINDS = {"monument", "numbers", "alphabets", "animal", "reptile", "back", "color", "orange color"}
_COLOURS = {"black", "blue", "brown", "gray", "green", "mauve", "pink", "red", "white", "yellow"}
_COUNTS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"}
_NO_LABEL = _KINDS | _COLOURS | _COUNTS | {"sixteen"}


def items(cache: Path) -> Iterator[Item]:
    """Every labelled photo.

    Raises:
        SourceUnavailable: where the package cannot be had.
        BadResource: where one of its resource files is damaged.
    """
    package = debian("gcompris-qt-data", cache)
    for activity in _ACTIVITIES:
        member = f"usr/share/gcompris-qt/rcc/{activity}.rcc"
        if member not in package:
            continue
        for path, content in sorted(read_rcc(package.read(member))):
            name = f"{activity}/{path.split('/resource/', 1)[-1]}"
            label = _label(name)
            if path.endswith((".webp", ".png", ".jpg")) and label not in _NO_LABEL:
                folder = name.split("/")[-2]
                words = tuple(word for word in (_PLACES.get(folder),) if word)
                yield Item(name, member, label, words, package, lambda content=content: content)  # type: ignore[misc]


def _label(name: str) -> str:
    """ "tools/measuringTape4.webp" -> "measuring tape", "qutubMinar" -> "Qutub Minar" for monuments."""
    stem = re.sub(r"\d+$", "", name.rsplit("/", 1)[-1].rsplit(".", 1)[0])
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]+", " ", stem).split()
    if "monuments" in name:
        return " ".join(word[:1].upper() + word[1:] for word in words)
    return " ".join(words).lower()


class GCompris:
    """Photos of animals, things, food, tools and monuments with their names."""

    name = "gcompris"
    group: Group = "general"
    licence = "GPL-3.0-or-later; images partly CC-BY-SA-3.0, CC-BY or public domain"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        """See `RegistrySource.samples`."""
        return pool_samples(self.name, items(cache), limit, seed, skips, licence=self.licence, say=_say)


def _say(item: Item, rng: random.Random) -> str:
    if "monuments" in item.name:
        place = f" in {item.words[0]}" if item.words else ""
        return rng.choice((f"{item.label}{place}.", f"A photo of the monument {item.label}{place}."))
    thing = article(item.label)
    return rng.choice(
        (f"{thing.capitalize()}.", f"A photo of {thing}.", f"This is {thing}.", f"The photo shows {thing}.")
    )
