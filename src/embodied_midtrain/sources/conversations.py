"""A user's image-text data: records in JSON or JSONL, as LLaVA, ShareGPT, Qwen-VL and the messages format write them.

A record: `{"id", "image": path or list of paths, "conversations": [{"from": "human", "value": "<image>\\n..."}, ...]}`
or `{"images": [...], "messages": [{"role": "user", "content": text or list of parts}, ...]}`; questions with answers
and captions are read as well (`fields`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from embodied_midtrain.artifacts import Skips, StageError, file_sha256
from embodied_midtrain.samples import BadSample
from embodied_midtrain.sources.fields import Maker
from embodied_midtrain.sources.files import FilePool, Record, Repeats
from embodied_midtrain.sources.places import Place
from embodied_midtrain.sources.records import Broken, is_list, read_records

ENDINGS = (".json", ".jsonl")


class ConversationPool(FilePool):
    """The records of one or several files as a pool.

    Raises:
        StageError: where a file or the image folder cannot be used at all.
    """

    def __init__(self, name: str, files: list[Place], maker: Maker, skips: Skips, repeats: Repeats = "skip") -> None:
        for place in files:
            is_list(place)
        root = maker.images.root
        if root is not None and not root.is_dir():
            raise StageError(f"the image folder {root} does not exist")
        super().__init__(name, files, maker, skips, repeats)
        self._fingerprint = ""

    def records(self, place: Place, *, lazily: bool = False) -> Iterator[Record]:
        for number, record in enumerate(read_records(place)):
            value = BadSample("broken JSON", record.why) if isinstance(record, Broken) else record
            yield Record(f"record {number}", value, f"{number:08d}")

    def fingerprint(self) -> str:
        """Of the files' bytes too, and of size and time of every image that they name."""
        if not self._fingerprint:
            digest = hashlib.sha256(super().fingerprint().encode())
            for place in self.files:
                local = place.local
                digest.update(file_sha256(local).encode() if local is not None else b"")
            # Faults are noted when the samples are read: whoever judges their share compares it with what was read.
            samples = (sample for place in self.files for sample in self._samples(place, noting=False))
            for picture in (picture for sample in samples for picture in sample.pictures):
                if picture.path is not None:
                    stat = Path(picture.path).stat()
                    digest.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint
