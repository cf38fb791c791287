"""A domain from a pool of your own: some of its samples, under the domain's name."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import replace

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.capabilities.splits import Split, split_of
from embodied_midtrain.samples import BadSample, Pool, Sample


def drawn(pool: Pool, domain: str, wanted: int, split: Split, seed: int, skips: Skips) -> Iterator[Sample]:
    """At most `wanted` samples of a split, drawn by a hash of their names.

    Samples with the same first picture are on the same side.
    """

    def own() -> Iterator[tuple[bytes, tuple[str, str]]]:
        for sample in pool:
            name = "/".join(sample.key)
            try:
                if split_of(_shown(sample)) == split:
                    yield hashlib.sha256(f"{seed}:{name}".encode()).digest(), sample.key
            except BadSample as error:
                skips.add(error.reason, name, error.detail)

    keys = [key for _, key in heapq.nsmallest(wanted, own())]
    found = pool.find(keys)
    for source, id in keys:
        yield replace(found[source, id], source=domain, id=f"{source}/{id}")


def _shown(sample: Sample) -> str:
    """What tells its picture from others: the file's name, else its bytes."""
    if not sample.pictures:
        return "/".join(sample.key)
    first = sample.pictures[0]
    # Its last two parts, so that data can be moved.
    return "/".join(first.path.parts[-2:]) if first.path is not None else hashlib.sha256(first.read()).hexdigest()
