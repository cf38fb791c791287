"""Made-up pools, and selections of them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image

from embodied_midtrain.samples import Picture, Sample, Turn
from embodied_midtrain.sources.export.selection import Selection


@dataclass
class Made:
    """A pool of samples at hand that counts how often a picture was read."""

    samples: Sequence[Sample]
    name: str = "made"

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def fingerprint(self) -> str:
        return f"{self.name}-{len(self.samples)}"

    def find(self, keys: object) -> dict[tuple[str, str], Sample]:
        return {sample.key: sample for sample in self.samples}


def encoded(kind: str = "PNG", size: tuple[int, int] = (12, 8), seed: int = 0, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def sample(id: str, source: str = "a", pictures: Sequence[bytes] = (), turns: Sequence[Turn] = ()) -> Sample:
    turns = turns or (Turn("user", f"What is {id}?"), Turn("assistant", f"It is {id}."))
    return Sample(source, id, tuple(Picture(data=data) for data in pictures), tuple(turns), "CC0-1.0", f"file {id}")


def chosen(keys: Sequence[tuple[str, str]], fingerprint: str = "f") -> Selection:
    table = pa.table(
        {
            "source": [source for source, _ in keys],
            "id": [id for _, id in keys],
            "score": pa.array([1.0 - n / 100 for n in range(len(keys))], pa.float32()),
            "rank": list(range(len(keys))),
            "reason": ["near"] * len(keys),
        }
    )
    return Selection(table, fingerprint)


def choose(samples: Sequence[Sample]) -> Selection:
    return chosen([sample.key for sample in samples])
