"""Open whatever holds episodes as a stream of traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from embodied_midtrain.artifacts import MANIFEST, Artifact, Skips, StageError, fingerprint_of
from embodied_midtrain.coupled.calibration import Calibration
from embodied_midtrain.coupled.measured import MeasuredConfig, measured_traces
from embodied_midtrain.coupled.recording import recorded_traces
from embodied_midtrain.coupled.trace import Trace
from embodied_midtrain.robots.hdf5 import demos_artifact_files
from embodied_midtrain.robots.opening import open_robots


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


def open_traces(
    path: Path | str,
    measured: MeasuredConfig = MeasuredConfig(),
    *,
    camera: str | None = None,
    calibration: Calibration | None = None,
) -> Traces:
    """Traces of demonstrations with their truth, or of any robot data with a state.

    Args:
        path: demonstrations of `emt demos --truth-every`, or what `robots.opening.open_robots` opens.
        measured: what the state means; where it names none, demonstrations' own truth is read.
        camera: which pictures to take where the data hold several.
        calibration: of that camera; without it nothing is projected into the pictures.

    Raises:
        StageError: where nothing is there, neither truth nor a state's name is given, or a camera without a state.
    """
    path, skips = Path(path), Skips()
    if measured.state:
        robots = open_robots(path, skips, camera=camera, state=measured.state)
        known = fingerprint_of([robots.fingerprint(), measured, camera, calibration])
        return Traces(
            robots.name, known, None, skips, lambda: measured_traces(robots, measured, calibration, skips, camera)
        )
    if not (path / MANIFEST).is_file():
        raise StageError(
            f"{path} was not recorded with its truth: name the state that holds the hand's place, such as "
            "--state observation.state"
        )
    if camera is not None or calibration is not None:
        raise StageError(
            "--camera and --calibration are for a state that --state names; demonstrations with their truth have both"
        )
    artifact = Artifact.open(path, "demos")
    files = demos_artifact_files(artifact)
    return Traces(
        path.name, artifact.fingerprint, int(artifact.counts["episodes"]), skips, lambda: recorded_traces(files, skips)
    )
