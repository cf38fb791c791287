"""Open whatever holds episodes as a stream of traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from embodied_midtrain.artifacts import Artifact, Skips
from embodied_midtrain.coupled.recording import recorded_traces
from embodied_midtrain.coupled.trace import Trace
from embodied_midtrain.robots.hdf5 import demos_artifact_files


@dataclass(frozen=True)
class Traces:
    """Traces that can be read again, always in the same order.

    Attributes:
        name: for messages.
        fingerprint: changes with the content.
        count: how many there are, where that is known.
        skips: what could not be used is added here while the stream is read.
        read: starts the stream.
    """

    name: str
    fingerprint: str
    count: int | None
    skips: Skips
    read: Callable[[], Iterator[Trace]]

    def __iter__(self) -> Iterator[Trace]:
        return self.read()


def open_traces(path: Path) -> Traces:
    """Traces of demonstrations that were recorded with their truth.

    Raises:
        StageError: where nothing is there.
    """
    skips = Skips()
    artifact = Artifact.open(path, "demos")
    files = demos_artifact_files(artifact)
    count = int(artifact.counts["episodes"])
    return Traces(path.name, artifact.fingerprint, count, skips, lambda: recorded_traces(files, skips))
