"""Any pool by its path: an artifact of `emt pool build`, or a user's conversation file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from embodied_midtrain.artifacts import Artifact, Skips, StageError
from embodied_midtrain.samples import Pool, Sample
from embodied_midtrain.sources.conversations import ConversationPool
from embodied_midtrain.sources.table import SampleIndex, read_table

POOL_STAGE = "pool build"


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

    def tables(self) -> list[Path]:
        return [
            self.artifact.file(name) for name in sorted(self.artifact.manifest["files"]) if name.endswith(".parquet")
        ]


def open_pool(path: Path, *, images: Path | None = None, skips: Skips) -> Pool:
    """Open a pool for reading.

    Args:
        path: a pool artifact's folder, or a JSON or JSONL file of conversations.
        images: folder that image paths in a conversation file start from; by default the file's own folder.
        skips: bad records are added here while the pool is read; they are not raised.

    Raises:
        StageError: where there is nothing that can be read at all; the message names the remedy.
    """
    path = Path(path)
    if not path.exists():
        raise StageError(
            f"there is no pool {path}; give a folder that 'emt pool build' made, or a .json or .jsonl file of "
            "conversations"
        )
    if path.is_dir():
        return TablePool(Artifact.open(path, POOL_STAGE))
    return ConversationPool(path, images, skips)


def read_samples(path: Path, keys: Iterable[tuple[str, str]], *, images: Path | None = None) -> Iterator[Sample]:
    """These samples of a pool, in the order of `keys`.

    A pool artifact is read at random; of a conversation file, which has no index, the wanted records (with paths in
    place of images) are gathered in one pass.

    Raises:
        StageError: where one of them is not in the pool.
    """
    wanted = list(keys)
    pool = open_pool(path, images=images, skips=Skips())
    found: SampleIndex | dict[tuple[str, str], Sample]
    if isinstance(pool, TablePool):
        found = SampleIndex(pool.tables())
    else:
        names = set(wanted)
        found = {sample.key: sample for sample in pool if sample.key in names}
    for key in wanted:
        if key not in found:
            raise StageError(
                f"sample {key[1]!r} of source {key[0]!r} is not in the pool {path}; "
                "give the pool that the selection was made from"
            )
        yield found[key]
