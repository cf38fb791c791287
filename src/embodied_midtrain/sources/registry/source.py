"""What a source of the default pool is: a name, its kind and licence, and a stream of samples.

A source is a small class without arguments. It is named in `build.SOURCES` as "module:Class" and imported only
when it is built, so that a source whose packages are missing costs nothing and stops nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol

from embodied_midtrain.artifacts import Skips, StageError
from embodied_midtrain.samples import Sample

Group = Literal["general", "embodied", "render", "screen", "document", "chart"]
"""What the images are: photos, drawings and handwriting (general); scenes that a robot could work in, with exact
truth (embodied); other ray-traced or modelled objects (render); screenshots; text pages; diagrams."""


class SourceUnavailable(StageError):
    """This source cannot be had on this machine now; the message says why and what would mend it."""


class RegistrySource(Protocol):
    """One source of the default pool.

    Attributes:
        name: stands in `Sample.source`; lower case, letters, digits and hyphens.
        group: what kind of images these are.
        licence: of the source as a whole; a sample may carry a narrower one.
    """

    name: str
    group: Group
    licence: str

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        """At most `limit` samples, the same ones in the same order for the same seed.

        Runs in a process of its own. Images are `images.picture(...)`: at most 336 px, encoded the same every
        time. Records that cannot be used are added to `skips` and left out.

        Args:
            cache: folder for what is fetched; shared by all sources and kept between builds.
            limit: how many samples are wanted; fewer where the source has no more.

        Raises:
            SourceUnavailable: where its package, simulator or tool cannot be had.
        """
        ...
