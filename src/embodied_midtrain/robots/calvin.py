"""CALVIN's recordings: one npz file a time step, instructions on stretches of them.

A split (`training`, `validation`) holds `episode_0358482.npz` and so on, and `lang_annotations/auto_lang_ann.npy`,
whose pairs of first and last step become episodes. That file is a pickle; only plain containers, numbers and texts
are taken out of it, and nothing in it is run.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pickle
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Skips, StageError
from embodied_midtrain.episodes import ActionSpec, BadEpisode, Episode, StoredFrames
from embodied_midtrain.robots.known import KNOWN

LANGUAGE = "lang_annotations/auto_lang_ann.npy"
CAMERA = "rgb_static"
ACTIONS = "rel_actions"


class CalvinRobots:
    """The annotated stretches of one split: see `episodes.Robots`. Frames stay in their files until asked for.

    Raises:
        StageError: where the folder is no split of CALVIN.
    """

    def __init__(
        self,
        folder: Path,
        skips: Skips,
        *,
        camera: str | None = None,
        spec: ActionSpec | None = None,
        state: str | None = None,
    ) -> None:
        self.folder = folder
        self._state = state
        self.name = f"calvin-{folder.name}"
        self.spec = spec or KNOWN["calvin"]
        self._camera = camera or CAMERA
        self._skips = skips
        self._reported: set[str] = set()
        self._stretches = _annotations(folder / LANGUAGE)

    def __iter__(self) -> Iterator[Episode]:
        given = 0
        for number, (first, last, task, instruction) in enumerate(self._stretches):
            where = f"{self.name} stretch {number}"
            try:
                episode = self._episode(number, first, last, task, instruction)
                episode.check(self.spec)
            except BadEpisode as error:
                if where not in self._reported:
                    self._reported.add(where)
                    self._skips.add(error.reason, where, error.detail)
                continue
            given += 1
            yield episode
        if not given:
            raise StageError(f"{self.name}: a target with no frames ({self._skips.example()}).")

    def fingerprint(self) -> str:
        """Of the annotations, and of the names and sizes of the first and last step of each stretch."""
        digest = hashlib.sha256(json.dumps([self._camera, self.spec.to_json(), self._stretches]).encode())
        for first, last, *_ in self._stretches:
            for step in (first, last):
                path = _step(self.folder, step)
                digest.update(f"{path.name} {path.stat().st_size if path.is_file() else -1}\n".encode())
        return digest.hexdigest()[:16]

    def _episode(self, number: int, first: int, last: int, task: str, instruction: str) -> Episode:
        if not 0 <= first <= last:
            raise BadEpisode("empty", f"from step {first} to {last}")
        steps = range(first, last + 1)
        actions = _rows([_array(_step(self.folder, n), ACTIONS) for n in steps], "bad actions")
        shape = _array(_step(self.folder, first), self._camera).shape
        read = functools.partial(_frames, self.folder, self._camera, first, shape)
        state = None
        if self._state is not None:
            state = _rows([_array(_step(self.folder, n), self._state) for n in steps], "bad state")
        return Episode(
            id=f"{number:06d}-{first:07d}",
            task=task,
            instruction=instruction,
            frames=StoredFrames((len(steps), *shape), read),
            actions=actions,
            state=state,
        )


def _rows(values: list[NDArray[Any]], reason: str) -> NDArray[np.float32]:
    """[time, width] of one array a step."""
    if len({value.shape for value in values}) > 1 or values[0].ndim != 1 or values[0].dtype.kind not in "fiu":
        raise BadEpisode(reason, f"not numbers of one width in every step: {values[0].dtype} {values[0].shape}")
    return np.stack(values).astype(np.float32)


def _frames(folder: Path, camera: str, first: int, shape: tuple[int, ...], wanted: Sequence[int]) -> NDArray[np.uint8]:
    found = [_array(_step(folder, first + n), camera) for n in wanted]
    if any(frame.shape != shape or frame.dtype != np.uint8 for frame in found):
        raise BadEpisode("bad frames", f"{camera} is not {list(shape)} bytes in every step")
    return np.stack(found)


def _step(folder: Path, number: int) -> Path:
    return folder / f"episode_{number:07d}.npz"


def _array(path: Path, name: str) -> NDArray[Any]:
    """One array of a step; pickled ones are refused by numpy."""
    try:
        with np.load(path, allow_pickle=False) as file:
            array: NDArray[Any] = file[name]
            return array
    except FileNotFoundError as error:
        raise BadEpisode("missing step", path.name) from error
    except KeyError as error:
        raise BadEpisode("missing key", f"{path.name}: {name}") from error
    except (OSError, ValueError, EOFError, BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
        raise BadEpisode("broken step", f"{path.name}: {str(error)[:200]}") from error


_BROKEN = (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, AttributeError, OverflowError, MemoryError)
"""What unpickling damaged bytes may raise."""


class _Plain(pickle.Unpickler):
    """Takes arrays, numbers, texts and containers of these; whatever else a pickle names is refused, not run."""

    _ALLOWED = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not read")
        return super().find_class(module, name)


def _annotations(path: Path) -> list[tuple[int, int, str, str]]:
    """(first step, last step, task, instruction) of each stretch.

    Raises:
        StageError: where the file is missing or is not what CALVIN writes.
    """
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("an unknown version of npy")
            # The header says what is known: one object. numpy's parser raises all sorts of things on a broken one.
            file.seek(int.from_bytes(file.read(2), "little"), os.SEEK_CUR)
            content: Any = _Plain(file).load()
        found = content.item() if isinstance(content, np.ndarray) else content
        language, stretches = found["language"], found["info"]["indx"]
        return [
            (int(first), int(last), str(task), str(text))
            for (first, last), task, text in zip(stretches, language["task"], language["ann"], strict=True)
        ]
    except FileNotFoundError as error:
        raise StageError(f"{path} is missing; give a split of CALVIN, such as task_D_D/training.") from error
    except (*_BROKEN, pickle.UnpicklingError) as error:
        raise StageError(f"{path} is not what CALVIN writes: {error}") from error
