"""Any pool by its path: an artifact of `emt pool build` or `emt compose`, a user's files, or a YAML file of several."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from embodied_midtrain.artifacts import MANIFEST, Artifact, Skips, StageError, read_json
from embodied_midtrain.samples import Pool, Sample
from embodied_midtrain.sources.composed import COMPOSE_STAGE, PARTS_FILE, ComposedPool
from embodied_midtrain.sources.mixed import MixedPool, Source, open_mixed, open_source
from embodied_midtrain.sources.places import absolute, is_url
from embodied_midtrain.sources.table import SampleIndex, read_table

POOL_STAGE = "pool build"
EXPORT_STAGE = "export"
POOL_FILE = "pool.yaml"
"""In an export: its files as a source."""


class TablePool:
    """The samples of a pool artifact, in order of file and row."""

    def __init__(self, artifact: Artifact) -> None:
        self.name = artifact.path.name
        self.artifact = artifact

    def __iter__(self) -> Iterator[Sample]:
        for path in self.tables():
            yield from read_table(path)

    def __len__(self) -> int:
        return int(self.artifact.counts["used"])

    def fingerprint(self) -> str:
        return self.artifact.fingerprint

    def keys(self) -> list[tuple[str, str]]:
        columns = [pq.read_table(path, columns=["source", "id"]) for path in self.tables()]
        return [key for one in columns for key in zip(*(one[c].to_pylist() for c in ("source", "id")), strict=True)]

    def find(self, keys: Collection[tuple[str, str]]) -> SampleIndex:
        """All of its samples, read when they are asked for."""
        return SampleIndex(self.tables())

    def tables(self) -> list[Path]:
        return [
            self.artifact.file(name) for name in sorted(self.artifact.manifest["files"]) if name.endswith(".parquet")
        ]


@dataclass(frozen=True)
class Section:
    """One source of a pool, or the whole of a pool that has one source."""

    name: str
    fingerprint: str
    """Changes when this source does, whatever else the pool holds."""
    samples: Callable[[], Iterator[Sample]]


def sections(pool: Pool) -> list[Section]:
    """The sources of a pool, in its order: their samples one after the other are the pool's."""
    if isinstance(pool, MixedPool):
        return [Section(one.name, one.fingerprint(), one.__iter__) for one in pool.pools]
    if isinstance(pool, TablePool):
        hashes, root = pool.artifact.manifest["files"], pool.artifact.path
        return [
            Section(path.stem, hashes[str(path.relative_to(root))], partial(read_table, path)) for path in pool.tables()
        ]
    return [Section(pool.name, pool.fingerprint(), pool.__iter__)]


def open_pool(path: Path | str, *, images: Path | None = None, skips: Skips) -> Pool:
    """Open a pool for reading.

    Args:
        path: the folder of a pool artifact, of a composition or of an export; conversations in JSON or JSONL,
            WebDataset shards, Parquet files or a folder of images with captions, each as a file, folder, pattern or
            URL; or a YAML file that names several of these.
        images: folder that image paths start from; by default the files' own folder.
        skips: bad records are added here while the pool is read; they are not raised.

    Raises:
        StageError: where there is nothing that can be read at all; the message names the remedy.
        ConfigError: where a YAML file cannot be understood.
    """
    text = str(path)
    if not is_url(text):
        local = Path(text)
        if (local / MANIFEST).is_file():
            if (local / POOL_FILE).is_file():
                return open_mixed(Artifact.open(local, EXPORT_STAGE).file(POOL_FILE), skips)
            if (local / PARTS_FILE).is_file():
                return _composed(Artifact.open(local, COMPOSE_STAGE), skips)
            return TablePool(Artifact.open(local, POOL_STAGE))
        if local.suffix in (".yaml", ".yml"):
            return open_mixed(local, skips)
        if not local.exists() and not set("*?[{") & set(text):
            raise StageError(
                f"there is no pool {text}; give a folder that 'emt pool build' made, conversations (.json, .jsonl), "
                "WebDataset shards, Parquet files, a folder of images with captions, or a YAML file that names several"
            )
    return open_source(Source(text, images=images), skips)


def _composed(artifact: Artifact, skips: Skips) -> ComposedPool:
    parts: dict[str, Pool] = {}
    for name, part in read_json(artifact.file(PARTS_FILE)).items():
        images = part["images"] and Path(absolute(part["images"], artifact.path))
        parts[name] = open_pool(absolute(part["path"], artifact.path), images=images, skips=skips)
        if parts[name].fingerprint() != part["fingerprint"]:
            raise StageError(f"the pool {part['path']} has changed since {artifact.path} was composed of it.")
    return ComposedPool(artifact, parts)


def keys_of(pool: Pool) -> list[tuple[str, str]]:
    """All keys of a pool, in its order; where it has a table of them, no picture is read."""
    return pool.keys() if isinstance(pool, TablePool | ComposedPool) else [sample.key for sample in pool]


def read_samples(path: Path | str, keys: Iterable[tuple[str, str]], *, images: Path | None = None) -> Iterator[Sample]:
    """These samples of a pool, in the order of `keys`.

    A pool artifact is read at random; of other files, which have no index, the wanted records (with references in
    place of images, where these lie on this machine) are gathered in one pass.

    Raises:
        StageError: where one of them is not in the pool.
    """
    wanted = list(keys)
    pool = open_pool(path, images=images, skips=Skips())
    found = pool.find(wanted)
    for key in wanted:
        if key not in found:
            raise StageError(
                f"sample {key[1]!r} of source {key[0]!r} is not in the pool {path}; "
                "give the pool that the selection was made from"
            )
        yield found[key]
