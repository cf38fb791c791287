"""`emt pool inspect`: what is in a pool before anything is computed on it: counts, texts, images, examples, faults."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from embodied_midtrain.artifacts import Skips, write_json
from embodied_midtrain.progress import console, progress_bar
from embodied_midtrain.samples import BadSample, Sample
from embodied_midtrain.sources.opening import open_pool
from embodied_midtrain.sources.pictures import look

EXAMPLES = 2
"""Shown of each source."""


@dataclass
class SourceFacts:
    """What was seen of one source."""

    samples: int = 0
    pictures: Counter[int] = field(default_factory=Counter)
    """How many samples have so many images."""
    turns: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    """Characters that the user says in a sample."""
    answered: list[int] = field(default_factory=list)
    sides: list[tuple[int, int]] = field(default_factory=list)
    formats: Counter[str] = field(default_factory=Counter)
    regions: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        self.samples += 1
        self.pictures[len(sample.pictures)] += 1
        self.turns.append(len(sample.turns))
        self.asked.append(sum(len(t.text) for t in sample.turns if t.role == "user"))
        self.answered.append(len(sample.answer))
        self.regions.update(region.kind for turn in sample.turns for region in turn.regions)
        self.licences[sample.licence or "not said"] += 1
        if len(self.examples) < EXAMPLES:
            turns = [f"{turn.role}: {turn.text[:200]}" for turn in sample.turns[:4]]
            self.examples.append({"id": sample.id, "origin": sample.origin, "turns": turns})

    def plain(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "pictures": {str(n): count for n, count in sorted(self.pictures.items())},
            "turns": _spread(self.turns),
            "characters_asked": _spread(self.asked),
            "characters_answered": _spread(self.answered),
            "image_width": _spread([w for w, _ in self.sides]),
            "image_height": _spread([h for _, h in self.sides]),
            "image_formats": dict(self.formats.most_common()),
            "regions": dict(self.regions.most_common()),
            "licences": dict(self.licences.most_common()),
            "examples": self.examples,
        }


def _spread(values: list[int]) -> dict[str, float] | None:
    if not values:
        return None
    low, middle, high = np.percentile(values, [5, 50, 95]).tolist()
    return {"least": min(values), "p5": low, "median": middle, "p95": high, "most": max(values)}


def inspect_pool(
    path: Path | str, *, images: Path | None = None, limit: int | None = None, decode: bool = True
) -> dict[str, Any]:
    """Facts on a pool, source by source, and its faults.

    Args:
        limit: samples to look at; None for all.
        decode: whether images are decoded whole, which finds the broken ones, or their headers are read only.

    Raises:
        StageError: where there is nothing that can be read at all.
    """
    skips = Skips()
    pool = open_pool(path, images=images, skips=skips)
    facts: dict[str, SourceFacts] = {}
    read = 0
    with progress_bar(f"inspect {pool.name}", limit) as bar:
        for sample in itertools.islice(pool, limit):
            read += 1
            bar.advance()
            try:
                pictures = [look(picture.read(), decode=decode) for picture in sample.pictures]
            except BadSample as error:
                skips.add(error.reason, "/".join(sample.key), error.detail)
                continue
            own = facts.setdefault(sample.source, SourceFacts())
            own.add(sample)
            own.sides += [size for size, _ in pictures]
            own.formats.update(kind for _, kind in pictures)
    return {
        "pool": str(path),
        "looked_at": read,
        "all": limit is None or read < limit,
        "usable": sum(own.samples for own in facts.values()),
        "sources": {name: own.plain() for name, own in sorted(facts.items())},
        "skipped": skips.counts(),
        "faults": skips.rows,
    }


def inspect_command(
    pool: str,
    images: Path | None = None,
    limit: int = 10_000,
    decode: bool = True,
    out: Path | None = None,
) -> None:
    """Show what is in a pool: counts, lengths of texts, sizes of images, examples, faults.

    Examples:
        emt pool inspect --pool data/llava_v1_5_mix665k.json --images data/images
        emt pool inspect --pool "data/cc12m/{00000..00099}.tar" --limit 0
        emt pool inspect --pool my-pool.yaml --out facts.json

    Args:
        pool: as for 'emt embed': a pool artifact, files of any known kind, or a YAML file that names several sources.
        images: folder that image paths start from.
        limit: samples to look at; 0 for all.
        decode: decode images whole, which finds broken ones, or read their headers only.
        out: a JSON file for the facts, with every fault listed.
    """
    facts = inspect_pool(pool, images=images, limit=limit or None, decode=decode)
    table = Table(
        title=f"{facts['pool']}: {facts['looked_at']} samples looked at" + ("" if facts["all"] else " (more follow)")
    )
    for column in ("source", "samples", "images each", "image (median)", "asked", "answered", "geometry", "licence"):
        table.add_column(column)
    for name, own in facts["sources"].items():
        width, height = own["image_width"], own["image_height"]
        table.add_row(
            name,
            str(own["samples"]),
            ", ".join(f"{n}: {count}" for n, count in own["pictures"].items()),
            f"{width['median']:.0f} x {height['median']:.0f}" if width else "none",
            f"{own['characters_asked']['median']:.0f} characters",
            f"{own['characters_answered']['median']:.0f} characters",
            ", ".join(f"{count} {kind}" for kind, count in own["regions"].items()) or "none",
            ", ".join(own["licences"]),
        )
    console.print(table)
    for name, own in facts["sources"].items():
        for example in own["examples"]:
            console.print(f"[bold]{name}/{example['id']}[/bold]", highlight=False)
            for turn in example["turns"]:
                console.print(f"  {turn}", markup=False, highlight=False)
    print(
        f"usable: {facts['usable']}; faults: " + (", ".join(f"{n} {r}" for r, n in facts["skipped"].items()) or "none")
    )
    for fault in facts["faults"][:10]:
        print(f"  {fault['reason']}: {fault['where']} {fault['detail']}".rstrip())
    if out is not None:
        write_json(out, facts)
    elif len(facts["faults"]) > 10:
        print(f"  and {len(facts['faults']) - 10} more; --out FILE lists them all")
