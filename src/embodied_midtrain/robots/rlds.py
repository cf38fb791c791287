"""RLDS data sets (Open X-Embodiment) as TensorFlow Datasets stores them, read without TensorFlow.

A folder holds `dataset_info.json`, `features.json` and TFRecord shards. One record is one episode; what its steps hold
is stored step after step: T encoded images, T * width numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Skips, StageError, read_json
from embodied_midtrain.episodes import ActionSpec, BadEpisode, Episode, StoredFrames
from embodied_midtrain.robots.known import known_spec
from embodied_midtrain.robots.tfrecord import Value, parse_example, read_records
from embodied_midtrain.samples import BadSample, decode_image

INFO, FEATURES = "dataset_info.json", "features.json"
CAMERAS = ("image", "image_0", "rgb", "front_rgb", "agentview_rgb", "rgb_static", "hand_image")
"""Names of the main camera, in order of preference."""
_INSTRUCTIONS = (
    "steps/language_instruction",
    "steps/observation/natural_language_instruction",
    "steps/observation/language_instruction",
    "episode_metadata/language_instruction",
)


class RldsRobots:
    """The episodes of one split: see `episodes.Robots`. One episode's encoded images are in memory at a time.

    Raises:
        StageError: where the folder holds no such data set, or no camera.
    """

    def __init__(
        self,
        folder: Path,
        skips: Skips,
        *,
        split: str = "train",
        camera: str | None = None,
        spec: ActionSpec | None = None,
        state: str | None = None,
    ) -> None:
        self._skips, self._split = skips, split
        self._reported: set[str] = set()
        info, features = read_json(folder / INFO), read_json(folder / FEATURES)
        try:
            self.name = str(info.get("name") or folder.parent.name)
            self._leaves = dict(_leaves(features))
            self._camera = _pick_camera(self._leaves, camera, folder)
            self._actions = _action_parts(self._leaves, folder)
            self._state = _state_part(self._leaves, state, folder) if state is not None else None
            self.files = _shards(folder, self.name, info, split)
            width = sum(width for _, width in self._actions)
            self.spec = spec or known_spec(self.name, width) or _unknown(self._actions, width)
        except (AttributeError, TypeError, ValueError, KeyError, OverflowError) as error:
            raise StageError(f"{folder}: {INFO} or {FEATURES} is damaged: {error!r}") from error
        if self.spec.width != width:
            raise StageError(f"{folder}: actions are {width} wide, the spec that was given {self.spec.width}.")

    def __iter__(self) -> Iterator[Episode]:
        given = 0
        for path in self.files:
            number = -1
            with path.open("rb") as file:
                records = read_records(file)
                while True:
                    number += 1
                    where = f"{path.name}/{number}"
                    try:
                        record = next(records, None)
                    except BadEpisode as error:
                        self._skip(error.reason, where, f"{error.detail}; the rest of the shard is lost")
                        break
                    if record is None:
                        break
                    try:
                        episode = self._episode(parse_example(record), f"{self._split}-{path.name[-14:]}/{number:05d}")
                        episode.check(self.spec)
                    except BadEpisode as error:
                        self._skip(error.reason, where, error.detail)
                        continue
                    given += 1
                    yield episode
        if not given:
            raise StageError(f"{self.name}: a target with no frames ({self._skips.example()}).")

    def fingerprint(self) -> str:
        """Of the shards' names, sizes and times."""
        digest = hashlib.sha256(json.dumps([self._split, self._camera, self.spec.to_json()]).encode())
        for path in self.files:
            stat = path.stat()
            digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]

    def _skip(self, reason: str, where: str, detail: str) -> None:
        if where not in self._reported:
            self._reported.add(where)
            self._skips.add(reason, where, detail)

    def _episode(self, example: dict[str, Value], identity: str) -> Episode:
        images = example.get(self._camera)
        if not isinstance(images, list) or not images:
            raise BadEpisode("missing key", f"no images {self._camera}")
        length = len(images)
        parts = [_numbers(example, name, width, length) for name, width in self._actions]
        first = _decode(images[0])
        shape = (length, *first.shape)

        def read(wanted: Sequence[int]) -> NDArray[np.uint8]:
            found = [_decode(images[n]) for n in wanted]
            if any(frame.shape != first.shape for frame in found):
                raise BadEpisode("bad frames", "frames of several sizes in one episode")
            return np.stack(found)

        return Episode(
            id=identity,
            task=self.name,
            instruction=_instruction(example),
            frames=StoredFrames(shape, read),
            actions=np.concatenate(parts, axis=1),
            state=_numbers(example, *self._state, length) if self._state is not None else None,
        )


def _decode(data: bytes) -> NDArray[np.uint8]:
    try:
        return np.asarray(decode_image(data))
    except BadSample as error:
        raise BadEpisode("broken frame", str(error)) from error


def _numbers(example: dict[str, Value], name: str, width: int, length: int) -> NDArray[np.float32]:
    values = example.get(name)
    if values is None or isinstance(values, list):
        raise BadEpisode("missing key", f"no numbers {name}")
    if len(values) != width * length:
        raise BadEpisode("uneven", f"{name}: {len(values)} numbers for {length} steps of {width}")
    return values.astype(np.float32).reshape(length, width)


def _instruction(example: dict[str, Value]) -> str:
    for name in _INSTRUCTIONS:
        texts = example.get(name)
        if isinstance(texts, list) and texts and texts[0].strip():
            return texts[0].decode("utf-8", errors="replace").strip()
    return ""


def _leaves(feature: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every feature that holds values, by its path."""
    inner = feature.get("sequence", {}).get("feature") if isinstance(feature.get("sequence"), dict) else None
    if inner is not None:
        yield from _leaves(inner, prefix)
        return
    named = feature.get("featuresDict", {}).get("features")
    if named is None:
        yield prefix, feature
        return
    for name, part in named.items():
        yield from _leaves(part, f"{prefix}/{name}" if prefix else name)


def _pick_camera(leaves: dict[str, dict[str, Any]], wanted: str | None, folder: Path) -> str:
    cameras = [name for name, feature in leaves.items() if "image" in feature and "observation" in name]
    short = {name.rpartition("/")[2]: name for name in cameras}
    for name in (wanted,) if wanted is not None else (*CAMERAS, *short):
        if name in short:
            return short[name]
    there = ", ".join(short) or "none"
    raise StageError(f"{folder}: no camera {wanted or ''} among its images ({there}); choose one with --camera.")


def _action_parts(leaves: dict[str, dict[str, Any]], folder: Path) -> list[tuple[str, int]]:
    """The numbers that make up an action, each with its width, in the order of the data set."""
    found = []
    for name, feature in leaves.items():
        if name == "steps/action" or name.startswith("steps/action/"):
            found.append((name, _width(feature)))
    if not found:
        raise StageError(f"{folder}: its steps have no action.")
    return found


def _unknown(parts: list[tuple[str, int]], width: int) -> ActionSpec:
    spec = ActionSpec.unknown(width, 0.0)
    names = tuple(f"{name.rpartition('/')[2]}{k}" for name, own in parts for k in range(own))
    return replace(spec, names=names)


def _width(feature: dict[str, Any]) -> int:
    sizes = feature.get("tensor", {}).get("shape", {}).get("dimensions", [])
    return int(np.prod([int(size) for size in sizes])) if sizes else 1


def _state_part(leaves: dict[str, dict[str, Any]], wanted: str, folder: Path) -> tuple[str, int]:
    prefix = "steps/observation/"
    there = [name.removeprefix(prefix) for name in leaves if name.startswith(prefix) and "tensor" in leaves[name]]
    if wanted not in there:
        raise StageError(f"{folder}: no state {wanted!r} among its numbers ({', '.join(there) or 'none'}).")
    return prefix + wanted, _width(leaves[prefix + wanted])


def _shards(folder: Path, name: str, info: dict[str, Any], split: str) -> list[Path]:
    # No pattern: the name is whatever the data say it is.
    found = sorted(p for p in folder.iterdir() if p.name.startswith(f"{name}-{split}.tfrecord-"))
    if not found:
        there = sorted(
            {path.name.split(".tfrecord")[0].removeprefix(f"{name}-") for path in folder.glob("*.tfrecord-*")}
        )
        raise StageError(f"{folder} has no shard of the split {split!r}; there are: {', '.join(there) or 'none'}.")
    wanted: list[str] = next((s.get("shardLengths", []) for s in info.get("splits", []) if s.get("name") == split), [])
    if wanted and len(wanted) != len(found):
        raise StageError(
            f"{folder} has {len(found)} of {len(wanted)} shards of the split {split!r}; fetch the others, or set "
            f"'shardLengths' in {INFO} to what is there."
        )
    return found
