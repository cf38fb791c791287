"""Sources that work, fail or crash, for the builder, which loads them in processes of their own."""

import errno
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.samples import Sample, caption
from embodied_midtrain.sources.registry.images import picture
from embodied_midtrain.sources.registry.source import SourceUnavailable


class Good:
    name = "good"
    group = "general"
    licence = "CC0-1.0"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        rng = random.Random(f"{seed}:{self.name}")
        skips.add("broken image", f"{self.name}/x")
        for i in range(limit):
            image = picture(Image.new("RGB", (400, 20), (rng.randrange(256), 0, 0)))
            yield caption(self.name, str(i), image, f"colour {rng.random()}", licence=self.licence)


class Other(Good):
    name = "other"


class Slow(Good):
    """Waits until the cache holds a file "go", and says there that it has begun."""

    name = "slow"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        (cache / "begun").write_text(str(os.getpid()))
        while not (cache / "go").exists():
            time.sleep(0.05)
        yield from super().samples(cache, limit, seed, skips)


class Messy(Good):
    """Gives samples without an answer, of another source, twice the same, and more than are wanted."""

    name = "messy"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        for sample in super().samples(cache, limit + 1, seed, skips):
            yield sample
            yield sample
            yield Sample("stranger", f"a{sample.id}", (), sample.turns)
            yield Sample(self.name, f"b{sample.id}", (), sample.turns[:1])


class Unavailable(Good):
    name = "unavailable"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        raise SourceUnavailable("its package is not to be had")


class Late(Good):
    """Can be had once the cache holds a file "go"."""

    name = "late"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        if not (cache / "go").exists():
            raise SourceUnavailable("not yet")
        yield from super().samples(cache, limit, seed, skips)


class Failing(Good):
    """Fails in the middle."""

    name = "failing"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        yield from super().samples(cache, 1, seed, skips)
        raise KeyError("no such row")


class Crashing(Good):
    name = "crashing"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        os.abort()


class Empty(Good):
    name = "empty"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        return iter(())


class FullDisk(Good):
    name = "full"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield
