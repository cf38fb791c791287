"""Rubber stamps with a one-line description: Debian's tuxpaint-stamps-default."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.samples import Sample
from embodied_midtrain.sources.registry.fetch import debian
from embodied_midtrain.sources.registry.labelled import Item, pool_samples
from embodied_midtrain.sources.registry.source import Group


def items(cache: Path) -> Iterator[Item]:
    """Every stamp with a raster image and an English description (the first line of its text file).

    Raises:
        SourceUnavailable: where the package cannot be had.
    """
    package = debian("tuxpaint-stamps-default", cache)
    for member in package.names("*/tuxpaint/stamps/*.png"):
        text = f"{member[:-4]}.txt"
        if text not in package:
            continue
        lines = package.read(text).decode("utf-8", "replace").splitlines()
        label = lines[0].strip() if lines else ""
        if label:
            name = member.split("/stamps/", 1)[1][:-4]
            words = tuple(part.replace("_", " ") for part in name.split("/")[:-1])
            yield Item(name, member, label, words, package, lambda member=member: package.read(member))  # type: ignore[misc]


class TuxPaint:
    """Stamps (cut-out photos and drawings) with their descriptions."""

    name = "tuxpaint-stamps"
    group: Group = "general"
    licence = "GPL-2.0-only"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        """See `RegistrySource.samples`."""
        return pool_samples(self.name, items(cache), limit, seed, skips, licence=self.licence, say=_say)


def _say(item: Item, rng: random.Random) -> str:
    return item.label if not item.words or rng.random() < 0.7 else f"{item.label} ({item.words[-1]})"
