"""A pool of several sources, as one YAML file names them.

sources:
  - {path: data/cc12m, format: cc-12m}
  - {path: data/llava_v1_5_mix665k.json, images: data/images, format: llava-665k}
  - {path: "hf://datasets/keplerccc/Robo2VLM-1/**/*.parquet", format: robo2vlm, licence: CC-BY-4.0}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from embodied_midtrain.artifacts import Skips, StageError, fingerprint_of
from embodied_midtrain.config import ConfigError, load_yaml, structure
from embodied_midtrain.samples import Sample
from embodied_midtrain.sources import conversations, parquet, webdataset
from embodied_midtrain.sources.conversations import ConversationPool
from embodied_midtrain.sources.fields import Fields, Maker
from embodied_midtrain.sources.files import FilePool
from embodied_midtrain.sources.folder import METADATA, PICTURES, FolderPool, folders_of
from embodied_midtrain.sources.formats import FORMATS, Kind, named
from embodied_midtrain.sources.parquet import ParquetPool
from embodied_midtrain.sources.pictures import ImageFolder
from embodied_midtrain.sources.places import Place, absolute, is_url, places
from embodied_midtrain.sources.webdataset import WebDatasetPool

ENDINGS: dict[Kind, tuple[str, ...]] = {
    "conversations": conversations.ENDINGS,
    "webdataset": webdataset.ENDINGS,
    "parquet": parquet.ENDINGS,
}


@dataclass(frozen=True)
class Source:
    """One source of a pool."""

    path: str
    """A file, a folder, a pattern (*, **, {00000..00099}) or a URL of such."""
    format: str = "auto"
    """A data set by name, such as "cc-12m", or a kind of file; auto goes by the files' endings."""
    name: str = ""
    """What its samples' source is called, where they do not say; by default the file's or folder's name."""
    images: Path | None = None
    """Folder that paths of images start from; by default the file's own."""
    licence: str = ""
    """Of samples that name none."""
    fields: Fields | None = None
    """Which fields of a record hold what, where they differ from the format's."""


@dataclass(frozen=True)
class PoolFile:
    """The sources of a pool."""

    sources: tuple[Source, ...]


class MixedPool:
    """Several sources, one after the other."""

    def __init__(self, name: str, pools: Sequence[FilePool]) -> None:
        self.name = name
        self.pools = list(pools)

    def __iter__(self) -> Iterator[Sample]:
        """The samples of each.

        Raises:
            StageError: where records of two files name the same source, so that ids could not be told apart.
        """
        owners: dict[str, str] = {}
        for pool in self.pools:
            for sample in pool:
                if owners.setdefault(sample.source, pool.name) != pool.name:
                    raise StageError(
                        f"{self.name}: records of {owners[sample.source]!r} and of {pool.name!r} both name the source "
                        f"{sample.source!r}, so that equal ids would be confused; give one of them "
                        "'fields: {source: []}', and its own name counts."
                    )
                yield sample

    def fingerprint(self) -> str:
        return fingerprint_of([pool.fingerprint() for pool in self.pools])

    def find(self, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Sample]:
        """See `FilePool.find`."""
        found: dict[tuple[str, str], Sample] = {}
        for pool in self.pools:
            found |= pool.find(set(keys) - found.keys())
        return found


def open_mixed(path: Path, skips: Skips) -> MixedPool:
    """The pool that a YAML file names; paths in it start from its own folder.

    Raises:
        ConfigError: on unknown keys and formats, and where two sources have one name.
        StageError: where sources cannot be read at all: all of them, and where they are to be had.
    """
    given = structure(PoolFile, load_yaml(path), path.name)
    sources = [_below(source, path.parent) for source in given.sources]
    if not sources:
        raise ConfigError(f"{path.name} names no sources")
    pools, missing = [], []
    for source in sources:
        try:
            pools.append(open_source(source, skips))
        except StageError as error:
            missing.append(f"{source.name or _name_of(source.path)}: {error}{_to_be_had(source)}")
    if missing:
        lines = [f"{path.name}: {len(missing)} of {len(sources)} sources cannot be read:", *missing]
        raise StageError("\n  ".join(lines))
    double = [name for name, count in Counter(pool.name for pool in pools).items() if count > 1]
    if double:
        raise ConfigError(f"{path.name}: two sources are called {double[0]!r}; give them names of their own")
    return MixedPool(path.stem, pools)


def _to_be_had(source: Source) -> str:
    """What a missing data set is, where it is, and under which licence."""
    format = FORMATS.get(source.format)
    if format is None or not format.home:
        return ""
    licence = source.licence or format.licence
    return f" {format.about}; {format.home}" + (f" ({licence})" if licence else "")


def _below(source: Source, folder: Path) -> Source:
    return replace(
        source, path=absolute(source.path, folder), images=None if source.images is None else folder / source.images
    )


def open_source(source: Source, skips: Skips) -> FilePool:
    """One source as a pool.

    Raises:
        StageError: where there is nothing that can be read.
        ConfigError: on an unknown format.
    """
    format = named(_kind_of(source.path) if source.format == "auto" else source.format)
    fields = source.fields or format.fields
    name = source.name or _name_of(source.path)
    if format.kind == "folder":
        root = Path(source.path)
        if not root.is_dir():
            raise StageError(f"there is no folder {root}")
        files = folders_of(root)
        images: Path | None = root
    else:
        files = places(source.path, ENDINGS[format.kind])
        images = source.images or (files[0].local.parent if files[0].local is not None else None)
    maker = Maker(
        source=name,
        fields=fields,
        images=ImageFolder(None if images is None else images.resolve(), fields.base64),
        licence=source.licence or format.licence,
        rewrite=format.rewrite,
    )
    kinds: dict[str, type[FilePool]] = {
        "conversations": ConversationPool,
        "webdataset": WebDatasetPool,
        "parquet": ParquetPool,
        "folder": FolderPool,
    }
    return kinds[format.kind](name, files, maker, skips, format.repeats)


def _name_of(path: str) -> str:
    """The last part of a path that is no pattern."""
    parts = [part for part in path.rstrip("/").split("/") if part and not set("*?{[") & set(part)]
    return Place(parts[-1]).stem if parts else "pool"


def _kind_of(path: str) -> Kind:
    """By the files' endings; data files before images beside them, images before the JSON beside those."""
    found = places(path)
    for kind in ("webdataset", "parquet"):
        if any(place.name.endswith(ENDINGS[kind]) for place in found):
            return kind
    pictures = any(place.name in METADATA or place.suffix.lower() in PICTURES for place in found)
    if pictures and not is_url(path) and Path(path).is_dir():
        return "folder"
    if any(place.name.endswith(ENDINGS["conversations"]) for place in found):
        return "conversations"
    raise StageError(
        f"{path} holds nothing that can be read: JSON or JSONL of conversations, WebDataset shards (.tar), Parquet "
        "files, or images with captions beside them."
    )
