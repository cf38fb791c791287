"""What a simulator and what a policy are to each other: two small interfaces and the start states between them.

Words: a benchmark has tasks; a simulation is one task's world with its camera; an actor looks at frames and
instructions and says what to do.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.config import did_you_mean
from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.simulation.truth import Truth

Wording = Literal["training", "held-out"]
"""Instructions as in demonstrations, or those that no demonstration had."""


@dataclass(frozen=True, slots=True)
class Instructions:
    """The ways to say what a task wants: imperative, without a full stop.

    Attributes:
        training: those that demonstrations are recorded with.
        held_out: those that no demonstration has, to see whether a policy understands or memorised.
    """

    training: tuple[str, ...]
    held_out: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.training or not self.held_out:
            raise ValueError("a task needs an instruction to train with and one to hold out")
        if both := set(self.training) & set(self.held_out):
            raise ValueError(f"held-out instructions are also trained with: {sorted(both)}")

    def of(self, wording: Wording) -> tuple[str, ...]:
        return self.training if wording == "training" else self.held_out


class Simulation(Protocol):
    """One task's world. Everything that follows a `reset` depends on its argument and the actions alone."""

    def reset(self, state: int) -> None:
        """Start over from the initial state of that number."""
        ...

    def step(self, action: NDArray[np.float32]) -> bool:
        """Take one action [width], in the units of the benchmark's spec; True once the task is solved."""
        ...

    def frame(self) -> NDArray[np.uint8]:
        """What the camera sees now: [height, width, 3], RGB, upright."""
        ...

    def expert(self) -> NDArray[np.float32]:
        """What a scripted expert with privileged knowledge does now: [width]."""
        ...

    def proprioception(self) -> NDArray[np.float32]:
        """The arm's own state, for other tools' `obs`: [any]; a policy here never sees it."""
        ...

    def start(self) -> bytes:
        """Identifies the state right after `reset`, so that equal starts can be seen."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Truthful(Protocol):
    """A simulation that can also say what is true of its scene, for questions about it (`emt couple`)."""

    def truth(self) -> Truth:
        """A live view, good until the next `reset`."""
        ...


class Benchmark(Protocol):
    """A set of tasks with one action space. Stateless and cheap; `make` is what costs.

    It may also have `sets`, a mapping from names to tasks that go by them together, such as Meta-World's mt10.
    """

    @property
    def name(self) -> str: ...
    @property
    def tasks(self) -> tuple[str, ...]: ...
    @property
    def spec(self) -> ActionSpec: ...

    def horizon(self, task: str) -> int:
        """Steps after which an attempt counts as failed."""
        ...

    def instructions(self, task: str) -> Instructions: ...

    def make(self, task: str, size: int) -> Simulation:
        """The task's simulation with frames of `size` x `size`.

        Raises:
            StageError: where its packages or rendering libraries are missing.
        """
        ...


class Actor(Protocol):
    """What chooses actions: a policy.

    Attributes:
        chunk: actions predicted at a time.
        executed: how many of them are executed before the next look; at most `chunk`.
        spec: what its actions mean; compared with the benchmark's before the first episode.
        size: side of the frames it wants, in pixels.
        identity: changes whenever its answers may; rollouts of another actor are not taken for this one's.
    """

    @property
    def chunk(self) -> int: ...
    @property
    def executed(self) -> int: ...
    @property
    def spec(self) -> ActionSpec: ...
    @property
    def size(self) -> int: ...
    @property
    def identity(self) -> str: ...

    def act(self, frames: NDArray[np.uint8], instructions: list[str]) -> NDArray[np.float32]:
        """Frames [n, height, width, 3] and n instructions to actions [n, chunk, spec.width], in the spec's units."""
        ...


STATES_PER_SEED = 1_000_000


def training_state(seed: int, number: int) -> int:
    """Initial state for demonstrations: even numbers, so that no evaluation starts where a demonstration did."""
    if not 0 <= number < STATES_PER_SEED or seed < 0:
        raise ValueError(f"seed {seed}, number {number}: wanted seed >= 0 and number in [0, {STATES_PER_SEED})")
    return 2 * (seed * STATES_PER_SEED + number)


def evaluation_state(number: int) -> int:
    """Initial state of evaluation episode `number`, the same for every policy: odd numbers."""
    if number < 0:
        raise ValueError(f"evaluation episode {number}: wanted 0 or more")
    return 2 * number + 1


def check_tasks(benchmark: Benchmark, tasks: Sequence[str]) -> None:
    """Raise `ValueError` on a task that the benchmark has not (with the nearest), on none and on one named twice."""
    if not tasks:
        raise ValueError(f"give at least one task of {benchmark.name}, such as {benchmark.tasks[0]}")
    for task in tasks:
        if task not in benchmark.tasks:
            raise ValueError(f"{benchmark.name} has no task '{task}'; {did_you_mean(task, benchmark.tasks)}")
    if len(set(tasks)) < len(tasks):
        raise ValueError(f"a task is named twice in: {' '.join(tasks)}")


def chosen_tasks(benchmark: Benchmark, names: Sequence[str]) -> tuple[str, ...]:
    """The tasks that names of tasks, of the benchmark's `sets` of tasks, and "all" stand for.

    Raises:
        ValueError: as `check_tasks`.
    """
    sets = {"all": benchmark.tasks, **getattr(benchmark, "sets", {})}
    tasks = tuple(task for name in names for task in sets.get(name, (name,)))
    check_tasks(benchmark, tasks)
    return tasks


BENCHMARKS = {
    "metaworld": "embodied_midtrain.benchmarks.metaworld:MetaWorld",
    "metaworld_named": "embodied_midtrain.benchmarks.metaworld_named:MetaWorldNamed",
    "metaworld_sorting": "embodied_midtrain.benchmarks.metaworld_sorting:MetaWorldSorting",
    "metaworld_sorting_shuffled": "embodied_midtrain.benchmarks.metaworld_sorting:MetaWorldSortingShuffled",
    "libero_spatial": "embodied_midtrain.benchmarks.libero:LiberoSpatial",
    "libero_object": "embodied_midtrain.benchmarks.libero:LiberoObject",
    "libero_goal": "embodied_midtrain.benchmarks.libero:LiberoGoal",
    "libero_10": "embodied_midtrain.benchmarks.libero:Libero10",
    "libero_90": "embodied_midtrain.benchmarks.libero:Libero90",
}
"""Name: where its class stands. It is imported when it is asked for."""


def open_benchmark(name: str) -> Benchmark:
    """The benchmark of that name, or of a class of your own, given as "package.module:Class".

    Raises:
        ValueError: where there is none; the message has the nearest name.
    """
    where = name if ":" in name else BENCHMARKS.get(name)
    if where is None:
        raise ValueError(f"there is no benchmark '{name}'; {did_you_mean(name, BENCHMARKS)}")
    module, _, kind = where.partition(":")
    try:
        made: Benchmark = getattr(importlib.import_module(module), kind)()
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"the benchmark '{where}' cannot be opened: {error}") from error
    return made
