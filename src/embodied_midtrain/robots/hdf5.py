"""Episodes in the HDF5 layout of robomimic and LIBERO, read and written.

    data/                     attributes: env_args, problem_info, num_demos, total, ...
    data/demo_0/obs/<camera>  uint8 [time, height, width, 3]
    data/demo_0/actions       [time, width]
    mask/<name>               names of demos

LIBERO's files hold pictures as OpenGL has them, bottom row first, and say so in `macros_image_convention`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Artifact, Skips, StageError, file_sha256
from embodied_midtrain.episodes import ActionSpec, BadEpisode, Episode
from embodied_midtrain.extras import require

CAMERA = "agentview_rgb"
CAMERAS = (CAMERA, "agentview_image", "image", "front_rgb")
"""Names that the main camera goes by, in order of preference."""

_DAMAGE = (KeyError, OSError, ValueError, TypeError, RuntimeError, AttributeError)
"""What h5py raises on a damaged file."""

MERGE_MARGIN = 4 * 2**20
"""Bytes that a joined file may take beyond its parts' sum."""

ROBOSUITE_POSE = ActionSpec(
    names=("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
    kind="delta",
    frame="base",
    rotation="axis-angle",
    gripper=6,
    gripper_closed=1,
    low=(-1.0,) * 7,
    high=(1.0,) * 7,
    rate=20.0,
    scale=(0.05,) * 3 + (0.5,) * 3 + (1.0,),
)
"""Robosuite's OSC_POSE controller with its default limits: LIBERO's and most of robomimic's files, which do not say
it."""


def write_header(file: Any, *, task: str, instruction: str, spec: ActionSpec, environment: Mapping[str, Any]) -> Any:
    """Make the group `data` in an open h5py file, with what other tools look for; returns it.

    Args:
        environment: what robomimic calls env_args, beside the task's name.
    """
    data = file.create_group("data")
    data.attrs["env_args"] = json.dumps({"env_name": task, **environment}, sort_keys=True)
    data.attrs["problem_info"] = json.dumps(
        {"problem_name": task, "domain_name": "robosuite", "language_instruction": instruction}, sort_keys=True
    )
    data.attrs["macros_image_convention"] = "opencv"
    data.attrs["action_spec"] = json.dumps(spec.to_json(), sort_keys=True)
    return data


def write_demo(
    data: Any,
    number: int,
    episode: Episode,
    *,
    observations: Mapping[str, NDArray[Any]] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Append one episode as demo_<number>. Frames are packed one by one, so that a reader may take some only."""
    demo = data.create_group(f"demo_{number}")
    length = len(episode.actions)
    demo.attrs["num_samples"] = length
    demo.attrs["instruction"] = episode.instruction
    demo.attrs["success"] = episode.success
    for name, value in (attributes or {}).items():
        demo.attrs[name] = value
    obs = demo.create_group("obs")
    frames = episode.frames[:]
    packed: dict[str, Any] = {"compression": "gzip", "compression_opts": 1}
    obs.create_dataset(CAMERA, data=frames, chunks=(1, *frames.shape[1:]), track_times=False, **packed)
    for name, values in (observations or {}).items():
        obs.create_dataset(name, data=values, track_times=False)
    demo.create_dataset("actions", data=episode.actions, track_times=False)
    # Sparse, at the end, as robomimic's own converters write them for successful demonstrations.
    end = np.zeros(length, np.uint8)
    end[-1] = episode.success
    demo.create_dataset("rewards", data=end.astype(np.float32), track_times=False)
    demo.create_dataset("dones", data=end, track_times=False)


def close_header(file: Any, masks: Mapping[str, Sequence[int]]) -> None:
    """Write the totals, and named subsets of demos by their numbers."""
    data = file["data"]
    data.attrs["num_demos"] = len(data)
    data.attrs["total"] = int(sum(demo.attrs["num_samples"] for demo in data.values()))
    for name, numbers in masks.items():
        names = np.array([f"demo_{n}".encode() for n in numbers], dtype="S16")
        file.create_dataset(f"mask/{name}", data=names, track_times=False)


def merge(parts: Sequence[Path], out: Path, masks: Mapping[str, Sequence[int]]) -> None:
    """Join files of `write_header` and `write_demo`, numbered through, without unpacking their frames.

    Raises:
        OSError: ENOSPC, where the disk has no room for the result. It is looked up before, because HDF5 does not
            raise on a full disk: it crashes.
    """
    h5py = require("h5py", "data")
    wanted = sum(path.stat().st_size for path in parts) + MERGE_MARGIN
    if shutil.disk_usage(out.parent).free < wanted:
        raise OSError(errno.ENOSPC, f"{wanted / 2**20:.0f} MiB wanted", str(out))
    with h5py.File(out, "w") as file:
        for path in parts:
            with h5py.File(path, "r") as part:
                if "data" not in file:
                    data = file.create_group("data")
                    for name, value in part["data"].attrs.items():
                        data.attrs[name] = value
                for name in sorted(part["data"], key=_number):
                    part.copy(part["data"][name], file["data"], name=name)
        close_header(file, masks)


class Hdf5Robots:
    """Files of that layout as a stream of episodes: see `episodes.Robots`. One episode is in memory at a time.

    Whatever cannot be used is added to `skips` with its reason, once however often the stream is read.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        skips: Skips,
        *,
        fingerprint: str = "",
        camera: str | None = None,
        spec: ActionSpec | None = None,
        state: str | None = None,
    ) -> None:
        """`camera` names the pictures to take where a file holds several; else the first of `CAMERAS`. `spec` says what
        actions mean, where the files do not; `state` names arrays of `obs`, joined with commas.

        Raises:
            StageError: where no file holds a single demo, where files disagree about what an action is, or where a
                file neither says nor implies it.
        """
        self.name = name
        self.paths = tuple(paths)
        self._skips, self._camera, self._fingerprint, self._state = skips, camera, fingerprint, state
        self._reported: set[str] = set()
        specs: dict[Path, ActionSpec] = {}
        for path in self.paths:
            with self._opened(path) as file:
                if file is not None and demo_names(file):
                    specs[path] = _spec(file, path, spec)
        if not specs:
            raise StageError(_no_frames(self.name, skips))
        first = next(iter(specs))
        self.spec = specs[first]
        for path, spec in specs.items():
            if differences := self.spec.differences(spec):
                raise StageError(
                    f"{first.name} and {path.name} differ in what their actions mean: {'; '.join(differences)}. "
                    "Put files of different robots into folders of their own."
                )

    def __iter__(self) -> Iterator[Episode]:
        given = 0
        for path in self.paths:
            with self._opened(path) as file:
                for demo in demo_names(file) if file is not None else ():
                    identity = f"{path.stem}/{demo}"
                    try:
                        episode = self._read(file, path, demo, identity)
                    except BadEpisode as error:
                        self._skip(error.reason, identity, error.detail)
                        continue
                    given += 1
                    yield episode
        if not given:
            raise StageError(_no_frames(self.name, self._skips))

    def fingerprint(self) -> str:
        """Of the files' names and bytes."""
        if not self._fingerprint:
            digest = hashlib.sha256()
            for path in self.paths:
                digest.update(f"{path.name} {file_sha256(path)}\n".encode())
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    @contextlib.contextmanager
    def _opened(self, path: Path) -> Iterator[Any]:
        """The open file, or None (and a skip) where it is no readable HDF5 file of this layout."""
        h5py = require("h5py", "data")
        try:
            file = h5py.File(path, "r")
        except OSError as error:  # Truncated, empty or something else altogether: HDF5 tells them apart in words only.
            self._skip("unreadable file", path.name, str(error))
            yield None
            return
        with file:
            try:
                if "data" not in file:
                    raise KeyError("no group 'data'")
            except _DAMAGE as error:
                self._skip("missing key" if isinstance(error, KeyError) else "damaged file", path.name, str(error))
                yield None
                return
            try:
                yield file
            except StageError:
                raise
            except _DAMAGE as error:
                self._skip("damaged file", path.name, str(error))

    def _skip(self, reason: str, where: str, detail: str) -> None:
        if where not in self._reported:
            self._reported.add(where)
            self._skips.add(reason, where, detail)

    def _read(self, file: Any, path: Path, demo: str, identity: str) -> Episode:
        try:
            group = file["data"][demo]
            pictures = group["obs"][_camera(group["obs"], self._camera, identity)]
            frames = pictures[()] if pictures.dtype == np.uint8 else None
            actions = group["actions"][()]
            instruction = instruction_of(file["data"], group)
            success = bool(group.attrs.get("success", True))
            state = _joined(group, self._state, len(actions)) if self._state is not None else None
        except BadEpisode:  # A ValueError too.
            raise
        except KeyError as error:
            raise BadEpisode("missing key", f"{identity}: {error.args[0]}") from error
        except _DAMAGE as error:  # A damaged block, or a thing that is no array.
            raise BadEpisode("unreadable episode", f"{identity}: {error}") from error
        if getattr(actions, "dtype", np.dtype(object)).kind not in "fiub":
            raise BadEpisode("bad actions", f"{identity}: not plain numbers")
        if frames is None:
            raise BadEpisode("bad frames", f"{identity}: {pictures.dtype}, wanted uint8")
        if frames.ndim == 4 and _text(file["data"].attrs.get("macros_image_convention")) == "opengl":
            frames = np.ascontiguousarray(frames[:, ::-1])
        with np.errstate(over="ignore"):  # What becomes infinite is refused below.
            actions = actions.astype(np.float32)
        episode = Episode(
            id=identity,
            task=path.stem.removesuffix("_demo"),
            instruction=instruction,
            frames=frames,
            actions=actions,
            success=success,
            state=state,
        )
        episode.check(self.spec)
        return episode


def _no_frames(name: str, skips: Skips) -> str:
    return (
        f"{name}: a target with no frames. Wanted are HDF5 files with data/demo_0/obs/<camera> and "
        f"data/demo_0/actions, as 'emt demos' writes them ({skips.example()})."
    )


def _number(demo: str) -> tuple[int, str]:
    digits = re.search(r"\d+$", demo)
    return (int(digits.group()) if digits else -1, demo)


def demo_names(file: Any) -> list[str]:
    """Names of the groups of `data`, and of whatever is too damaged to say what it is."""

    def is_group(name: str) -> bool:
        try:
            return hasattr(file["data"][name], "keys")
        except _DAMAGE:
            return True

    return sorted(filter(is_group, file["data"]), key=_number)


def _camera(obs: Any, wanted: str | None, identity: str) -> str:
    if wanted is not None:
        if wanted not in obs:
            raise BadEpisode("missing key", f"{identity}: no camera '{wanted}', there are: {', '.join(obs)}")
        return wanted
    for name in CAMERAS:
        if name in obs:
            return name
    for name, item in obs.items():
        if getattr(item, "ndim", 0) == 4 and item.shape[-1] == 3:
            return str(name)
    raise BadEpisode("missing key", f"{identity}: no camera among {', '.join(obs) or 'nothing'}")


def _joined(demo: Any, names: str, length: int) -> NDArray[np.float32]:
    """[length, numbers] of arrays side by side: of obs, or by their path in the demo, such as truth/place.

    One that was recorded at some steps only, which an array `looks` beside it tells, is interpolated.
    """
    parts = []
    for name in (one.strip() for one in names.split(",")):
        if name not in demo["obs"] and name not in demo:
            raise KeyError(f"no '{name}', there are: {', '.join(demo['obs'])}")
        found = demo["obs"][name] if name in demo["obs"] else demo[name]
        values = found[()].astype(np.float32)
        values = values.reshape(len(values), -1)
        if len(values) != length and "looks" in found.parent:
            looks = found.parent["looks"][()]
            values = np.stack([np.interp(np.arange(length), looks, column) for column in values.T], 1)
        parts.append(values.astype(np.float32))
    return np.concatenate(parts, axis=1)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")


def _json(value: Any) -> dict[str, Any]:
    with contextlib.suppress(json.JSONDecodeError):
        parsed = json.loads(_text(value) or "{}")
        if isinstance(parsed, dict):
            return parsed
    return {}


def instruction_of(data: Any, demo: Any) -> str:
    """The demo's own, LIBERO's for the file, or robomimic's `lang`."""
    words = (
        _text(demo.attrs.get("instruction")),
        _json(data.attrs.get("problem_info")).get("language_instruction", ""),
        _json(data.attrs.get("env_args")).get("lang", ""),
    )
    # LIBERO wraps some of its instructions in a list.
    return next((" ".join(w) if isinstance(w, list) else str(w) for w in words if w), "").strip()


def _spec(file: Any, path: Path, given: ActionSpec | None) -> ActionSpec:
    attributes = file["data"].attrs
    if "action_spec" in attributes:
        try:
            return ActionSpec.from_json(json.loads(_text(attributes["action_spec"])))
        except (json.JSONDecodeError, TypeError, ValueError) as error:
            raise StageError(f"{path}: the attribute data.action_spec is no action spec: {error}") from error
    if given is not None:
        return given
    for demo in demo_names(file):
        actions = file["data"][demo].get("actions")
        if actions is not None and getattr(actions, "ndim", 0) == 2:
            if actions.shape[1] == ROBOSUITE_POSE.width and "env_args" in attributes:
                return ROBOSUITE_POSE
            raise StageError(
                f"{path} does not say what the {actions.shape[1]} numbers of an action mean: write them as JSON into "
                "the attribute data.action_spec (fields of embodied_midtrain.episodes.ActionSpec)."
            )
    raise StageError(f"{path}: no demo has 'actions'; wanted data/demo_0/actions of shape [time, width].")


def demos_artifact_files(artifact: Artifact) -> list[Path]:
    """The files of an `emt demos` artifact, in order of their names."""
    return sorted(artifact.path / name for name in artifact.manifest["files"] if name.endswith(".hdf5"))
