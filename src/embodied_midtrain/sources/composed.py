"""A composition: draws from several pools, in the order in which they are to be trained on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import pyarrow.parquet as pq

from embodied_midtrain.artifacts import Artifact
from embodied_midtrain.samples import Found, Pool, Sample

Key = tuple[str, str]
COMPOSE_STAGE = "compose"
PARTS_FILE, DRAWS_FILE = "parts.json", "draws.parquet"
"""Inside the artifact: where the pools are, and the pool (by name), source and id of every draw."""


class ComposedPool:
    """The draws of an 'emt compose' artifact; a sample that was drawn again comes again.

    Args:
        parts: the pools that it was drawn from, by name.
    """

    def __init__(self, artifact: Artifact, parts: Mapping[str, Pool]) -> None:
        self.name = artifact.path.name
        self._artifact = artifact
        self._parts = parts

    def __iter__(self) -> Iterator[Sample]:
        keys = self.keys()
        found = self.find(keys)
        for key in keys:
            yield found[key]

    def __len__(self) -> int:
        return int(self._artifact.counts["draws"])

    def keys(self) -> list[Key]:
        return [key for _, key in self._draws()]

    def fingerprint(self) -> str:
        return self._artifact.fingerprint

    def find(self, keys: Collection[Key]) -> Found:
        """See `Pool.find`; each pool is asked for its own draws only."""
        wanted = set(keys)
        part_of = {key: part for part, key in self._draws() if key in wanted}
        own: dict[str, set[Key]] = {}
        for key, part in part_of.items():
            own.setdefault(part, set()).add(key)
        return _Among(part_of, {part: self._parts[part].find(some) for part, some in own.items()})

    def _draws(self) -> Iterator[tuple[str, Key]]:
        columns = pq.read_table(self._artifact.file(DRAWS_FILE)).to_pydict()
        for part, source, id in zip(columns["part"], columns["source"], columns["id"], strict=True):
            yield part, (source, id)


class _Among:
    """Samples that several pools have found."""

    def __init__(self, part_of: Mapping[Key, str], found: Mapping[str, Found]) -> None:
        self._part_of, self._found = part_of, found

    def __contains__(self, key: Key) -> bool:
        return key in self._part_of and key in self._found[self._part_of[key]]

    def __getitem__(self, key: Key) -> Sample:
        return self._found[self._part_of[key]][key]
