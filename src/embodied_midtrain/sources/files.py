"""What all pools of files share: records to samples, bad ones noted once, ids that are unique, access by key."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal

from embodied_midtrain.artifacts import Skips, fingerprint_of
from embodied_midtrain.samples import BadSample, Sample
from embodied_midtrain.sources.fields import Maker
from embodied_midtrain.sources.places import Place

Repeats = Literal["skip", "number"]
"""What a second record under an id means: a fault, or (as in mixes that count per task) another sample."""


@dataclass(frozen=True)
class Record:
    """One record of a file as it was found; `value` is a BadSample where reading it failed."""

    place: str
    """Where in the file it is."""
    value: Any
    name: str = ""
    """Its id, where no field holds one; by default the place."""


class FilePool(ABC):
    """The samples of one source that lies in files; each pass reads them anew, memory does not grow with them.

    Ids are told apart within a file (64 bits are kept of each); where there are several files, the file's name goes
    before the id.

    Args:
        skips: bad records are added here, each once, however often the pool is read.
    """

    def __init__(
        self, name: str, files: Sequence[Place], maker: Maker, skips: Skips, repeats: Repeats = "skip"
    ) -> None:
        self.name = name
        self.files = list(files)
        self.maker = maker
        self.repeats = repeats
        self._skips = skips
        self._noted: set[tuple[str, str]] = set()
        self._labels = _labels(self.files)

    @abstractmethod
    def records(self, place: Place, *, lazily: bool = False) -> Iterator[Record]:
        """The records of one file, in order.

        Args:
            lazily: pictures are to be left where they are, since many samples are going to be held at once.

        Raises:
            StageError: where the file cannot be read at all.
        """

    def __iter__(self) -> Iterator[Sample]:
        for place in self.files:
            yield from self._samples(place)

    def fingerprint(self) -> str:
        """Of names, sizes and times of the files, and of how their records are read."""
        maker = replace(self.maker, rewrite=None, images=replace(self.maker.images, root=None))
        return fingerprint_of([self.name, maker, self.repeats, [place.stamp() for place in self.files]])

    def find(self, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Sample]:
        """These samples, as far as they are there; only files that can hold them are read."""
        wanted = set(keys)
        found: dict[tuple[str, str], Sample] = {}
        labels = {id.rpartition("/")[0] for _, id in wanted}
        for place in self.files:
            label = self._labels[place]
            if label and not any(one == label or one.startswith(f"{label}/") for one in labels):
                continue
            for sample in self._samples(place, lazily=True):
                if sample.key in wanted:
                    found[sample.key] = sample
            if len(found) == len(wanted):
                break
        return found

    def _samples(self, place: Place, *, lazily: bool = False, noting: bool = True) -> Iterator[Sample]:
        label = self._labels[place]
        maker = replace(self.maker, prefix=f"{label}/" if label else "")
        seen: set[int] = set()
        for record in self.records(place, lazily=lazily):
            try:
                if isinstance(record.value, BadSample):
                    raise record.value
                sample = maker.sample(record.value, record.name or record.place, f"{place.name} {record.place}")
                if _known(sample, seen):
                    if self.repeats == "skip":
                        raise BadSample("duplicate id", f"{sample.id!r} is there already")
                    sample = replace(sample, id=f"{sample.id}#{record.name or record.place}")
            except BadSample as error:
                mark = (place.text, record.place)
                if noting and mark not in self._noted:
                    self._noted.add(mark)
                    self._skips.add(error.reason, f"{place.name} {record.place}", error.detail)
                continue
            yield sample


def key_number(key: tuple[str, str]) -> int:
    """64 bits of a (source, id), by which millions of them are told apart."""
    return int.from_bytes(hashlib.blake2b("\0".join(key).encode(errors="surrogatepass"), digest_size=8).digest())


def _known(sample: Sample, seen: set[int]) -> bool:
    number = key_number(sample.key)
    if number in seen:
        return True
    seen.add(number)
    return False


def _labels(files: Sequence[Place]) -> dict[Place, str]:
    """What goes before the ids of each file: nothing for a single one, else its path below what all share."""
    if len(files) == 1:
        return {files[0]: ""}
    paths = [PurePosixPath(place.text) for place in files]
    shared = os.path.commonpath([path.parent for path in paths]) if files else ""
    return {place: str(path.parent.relative_to(shared) / place.stem) for place, path in zip(files, paths, strict=True)}
