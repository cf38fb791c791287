"""Open whatever holds robot episodes."""

from __future__ import annotations

from pathlib import Path

from embodied_midtrain.artifacts import MANIFEST, Artifact, Skips, StageError
from embodied_midtrain.episodes import Robots
from embodied_midtrain.robots.hdf5 import Hdf5Robots, demos_artifact_files

ENDINGS = (".hdf5", ".h5")


def open_robots(path: Path | str, skips: Skips, *, camera: str | None = None) -> Robots:
    """A demos artifact, a folder of robomimic or LIBERO files, or one such file, as a stream of episodes.

    Args:
        skips: episodes and files that cannot be used are added here, with the reason, while the stream is read.
        camera: which pictures to take where a file holds several.

    Raises:
        StageError: where nothing is there, nothing has frames, or files disagree about their actions.
    """
    path = Path(path)
    if (path / MANIFEST).is_file():
        artifact = Artifact.open(path, "demos")
        files = demos_artifact_files(artifact)
        return Hdf5Robots(path.name, files, skips, fingerprint=artifact.fingerprint, camera=camera)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in ENDINGS and not p.name.startswith("."))
    elif path.is_file():
        files = [path]
    else:
        raise StageError(f"there is no robot data at {path}; give a folder of 'emt demos', or robomimic HDF5 files.")
    return Hdf5Robots(path.stem if path.is_file() else path.name, files, skips, camera=camera)
