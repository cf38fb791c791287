"""Open whatever holds robot episodes."""

from __future__ import annotations

from pathlib import Path

from embodied_midtrain.artifacts import MANIFEST, Artifact, Skips, StageError, read_json
from embodied_midtrain.episodes import ActionSpec, Robots
from embodied_midtrain.robots import calvin, lerobot, rlds
from embodied_midtrain.robots.hdf5 import Hdf5Robots, demos_artifact_files

ENDINGS = (".hdf5", ".h5")
SPEC = "action_spec.json"
"""A file beside the data that says what actions mean, where the data do not."""


def open_robots(
    path: Path | str, skips: Skips, *, camera: str | None = None, split: str = "train", state: str | None = None
) -> Robots:
    """Robot data of any known kind as a stream of episodes.

    A demos artifact; a folder or file of robomimic's and LIBERO's HDF5; a LeRobot data set (version 2 or 3); an RLDS
    data set (the folder of a version, with dataset_info.json); a split of CALVIN. A file `action_spec.json` in the
    folder (fields of `episodes.ActionSpec`) says what actions mean, where the data do not.

    Args:
        skips: episodes and files that cannot be used are added here, with the reason, while the stream is read.
        camera: which pictures to take where the data hold several.
        split: of an RLDS data set.
        state: the name that the data have for what the robot measured, such as "observation.state" (LeRobot),
            "state" (RLDS), "robot_obs" (CALVIN), "ee_pos,ee_ori" (HDF5: of obs) or "truth/low" (HDF5: its path in a
            demo); left out, no state is read.

    Raises:
        StageError: where nothing is there, nothing has frames, or files disagree about their actions.
    """
    path = Path(path)
    if (path / MANIFEST).is_file():
        artifact = Artifact.open(path, "demos")
        files = demos_artifact_files(artifact)
        return Hdf5Robots(path.name, files, skips, fingerprint=artifact.fingerprint, camera=camera, state=state)
    spec = read_spec(path / SPEC) if (path / SPEC).is_file() else None
    if (path / lerobot.INFO).is_file():
        return lerobot.LeRobotRobots(path, skips, camera=camera, spec=spec, state=state)
    if (path / rlds.INFO).is_file():
        return rlds.RldsRobots(path, skips, split=split, camera=camera, spec=spec, state=state)
    if (path / calvin.LANGUAGE).is_file():
        return calvin.CalvinRobots(path, skips, camera=camera, spec=spec, state=state)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in ENDINGS and not p.name.startswith("."))
    elif path.is_file():
        files = [path]
    else:
        raise StageError(
            f"there is no robot data at {path}; give a folder of 'emt demos', robomimic HDF5 files, or the folder of a "
            "LeRobot, RLDS or CALVIN data set."
        )
    return Hdf5Robots(path.stem if path.is_file() else path.name, files, skips, camera=camera, spec=spec, state=state)


def read_spec(path: Path) -> ActionSpec:
    """What a file says that numbers mean.

    Raises:
        StageError: where it is missing or is no such file.
    """
    try:
        return ActionSpec.from_json(read_json(path))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StageError(f"{path} is no action spec ({error}); its fields are those of ActionSpec.") from error
