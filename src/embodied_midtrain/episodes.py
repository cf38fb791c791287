"""The neutral form of robot data: episodes, their frames, and what their actions mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from dataclasses import fields as fields_of
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray


class BadEpisode(ValueError):
    """One episode cannot be used. `reason` is a short word that skips are counted by."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


WIDEST = 10_000
"""Numbers that an action may have. A description that says more is damaged, and would fill the memory."""


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """What the numbers of an action mean; compared before anything is trained or rolled out.

    Attributes:
        names: one name a dimension, such as ("x", "y", "z", "gripper").
        kind: whether the arm's numbers are changes or targets; "unknown" where a data set does not say what its
            actions mean: enough to compare frames, too little to train a policy.
        frame: the frame they are given in: "world", "base", "end effector" or "joint".
        rotation: the form of the rotation part (`robots.rotations` lists them), "none" where there is none.
        gripper: index of the gripper's dimension, or None.
        gripper_closed: sign of the gripper's number that closes it (+1 or -1).
        low, high: bounds of each dimension as the controller takes them; infinite where there are none.
        rate: actions a second.
        scale: metres or radians that one unit of each dimension is (the gripper's is not used); empty where the
            data set does not say it.
    """

    names: tuple[str, ...]
    kind: Literal["delta", "absolute", "unknown"]
    frame: str
    rotation: str
    gripper: int | None
    gripper_closed: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    rate: float
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.low) == len(self.high):
            raise ValueError(f"{len(self.names)} names, {len(self.low)} low and {len(self.high)} high bounds")
        if self.gripper is not None and not 0 <= self.gripper < len(self.names):
            raise ValueError(f"gripper index {self.gripper} is outside the {len(self.names)} dimensions")
        if self.scale and (len(self.scale) != len(self.names) or not all(0 < s < math.inf for s in self.scale)):
            raise ValueError(f"scale {self.scale}: wanted a number above 0 for each of {len(self.names)} dimensions")

    @property
    def width(self) -> int:
        return len(self.names)

    @property
    def arm(self) -> tuple[int, ...]:
        """Indices of all dimensions but the gripper's."""
        return tuple(i for i in range(self.width) if i != self.gripper)

    def differences(self, other: ActionSpec) -> list[str]:
        """The fields in which two specs differ, each as a readable line; empty when they agree."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{name}: {mine[name]!r} against {theirs[name]!r}" for name in mine if mine[name] != theirs[name]]

    @classmethod
    def unknown(cls, width: int, rate: float, names: Sequence[str] = ()) -> ActionSpec:
        """Of actions that nobody has said the meaning of.

        Raises:
            ValueError: on a width that no robot has, as damaged descriptions do.
        """
        if not 0 < width <= WIDEST:
            raise ValueError(f"actions of {width:.4g} numbers; 1 to {WIDEST} can be meant")
        called = tuple(names) if len(names) == width else tuple(f"d{n}" for n in range(width))
        return cls(called, "unknown", "unknown", "unknown", None, 1, (-math.inf,) * width, (math.inf,) * width, rate)

    def to_json(self) -> dict[str, Any]:
        """Plain values; a bound that is infinite is None, for JSON knows no infinity. `scale` only where it is said."""
        bounds = {name: [v if math.isfinite(v) else None for v in getattr(self, name)] for name in ("low", "high")}
        found = {**asdict(self), **bounds}
        return found if self.scale else {name: value for name, value in found.items() if name != "scale"}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ActionSpec:
        """The inverse of `to_json`.

        Raises:
            ValueError, TypeError: where it is not what that gives.
        """
        missing = {field.name for field in fields_of(cls)} - value.keys() - {"scale"}
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        for name, endless in (("low", -math.inf), ("high", math.inf)):
            fields[name] = tuple(endless if v is None else float(v) for v in fields[name])
        if "scale" in fields:
            fields["scale"] = tuple(float(v) for v in fields["scale"])
        return cls(**fields)


class Frames(Protocol):
    """Camera images, uint8 [time, height, width, 3]: an array, or what stands for one and reads what is asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def ndim(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> NDArray[np.uint8]: ...


@dataclass(frozen=True, slots=True)
class StoredFrames:
    """Frames that stay in their file until they are asked for.

    Attributes:
        shape: [time, height, width, 3].
        read: from indices to these frames; raises `BadEpisode`.
    """

    shape: tuple[int, ...]
    read: Callable[[Sequence[int]], NDArray[np.uint8]]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any, /) -> NDArray[np.uint8]:
        wanted = np.arange(len(self))[index]
        found = self.read(np.atleast_1d(wanted).tolist())
        return found if np.ndim(wanted) else found[0]


@dataclass(frozen=True, slots=True)
class Episode:
    """One recorded attempt.

    Attributes:
        id: unique within the data set.
        task: short name of the task, such as "reach-v3".
        instruction: what the robot was asked, in words.
        frames: camera images, uint8 [time, height, width, 3], upright, RGB; perhaps still in their file.
        actions: what was commanded (the training label), float32 [time, spec.width].
        success: whether the task was solved.
        state: what was measured when each frame was taken, float32 [time, numbers], where the reader was asked for it.
    """

    id: str
    task: str
    instruction: str
    frames: Frames
    actions: NDArray[np.float32]
    success: bool = True
    state: NDArray[np.float32] | None = None

    def check(self, spec: ActionSpec) -> None:
        """Raise `BadEpisode` where arrays do not fit each other or the spec, or hold NaN."""
        if self.frames.ndim != 4 or self.frames.shape[-1] != 3:
            raise BadEpisode("bad frames", f"{self.id}: shape {self.frames.shape}, wanted [time, height, width, 3]")
        if self.actions.ndim != 2 or self.actions.shape[1] != spec.width:
            raise BadEpisode("bad actions", f"{self.id}: shape {self.actions.shape}, wanted [time, {spec.width}]")
        if len(self.frames) != len(self.actions):
            raise BadEpisode("uneven", f"{self.id}: {len(self.frames)} frames, {len(self.actions)} actions")
        if len(self.frames) == 0:
            raise BadEpisode("empty", self.id)
        if not np.isfinite(self.actions).all():
            raise BadEpisode("nan action", self.id)
        if self.state is not None and (self.state.ndim != 2 or len(self.state) != len(self.actions)):
            raise BadEpisode("bad state", f"{self.id}: shape {self.state.shape}, wanted [{len(self.actions)}, numbers]")
        if not self.instruction.strip():
            raise BadEpisode("no instruction", self.id)


class Robots(Protocol):
    """A stream of episodes that can be opened again and always gives the same order."""

    name: str
    spec: ActionSpec

    def __iter__(self) -> Iterator[Episode]: ...

    def fingerprint(self) -> str: ...


def target_prompt(instruction: str, template: str) -> str:
    """The user text that goes with a robot frame, in a policy as in the target.

    Raises:
        ValueError: where the template has no {instruction}.
    """
    if "{instruction}" not in template:
        raise ValueError(f"the prompt template {template!r} needs an {{instruction}} in it")
    return template.format(instruction=instruction)


ACTION_PROMPT = "What action should the robotic arm take to {instruction}"
"""VLM4VLA's user turn (arXiv 2601.03309)."""


def chunk_at(
    actions: Sequence[NDArray[np.float32]] | NDArray[np.float32], start: int, length: int
) -> NDArray[np.float32]:
    """`length` actions from `start` on, the last one repeated past the end: [length, width]."""
    index = np.minimum(np.arange(start, start + length), len(actions) - 1)
    return np.asarray(actions)[index]
