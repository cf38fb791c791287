"""`emt demos`: record successful episodes of scripted experts.

Half of them are disturbed: correlated noise is added to what is executed, while the recorded action stays what the
expert wanted there. A policy so also sees how to come back from where its own mistakes will take it (Laskey et al.,
"DART", arXiv 1703.09327).

Every episode has its own row of initial states and its own noise, so that it does not matter how many processes work.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import PARTS, Artifact, StageError, StageRun, open_stage, write_atomic
from embodied_midtrain.benchmarks.protocol import (
    Benchmark,
    Simulation,
    Truthful,
    Wording,
    chosen_tasks,
    open_benchmark,
    training_state,
)
from embodied_midtrain.coupled.recording import Recorder
from embodied_midtrain.episodes import Episode
from embodied_midtrain.extras import require
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.robots.hdf5 import merge, write_demo, write_header
from embodied_midtrain.workers import WorkerDied, WorkerFailed, work_through

EPISODES_A_PART = 10
"""What a kill can lose, at most, per process."""


@dataclass(frozen=True)
class DemosConfig:
    """What to record."""

    tasks: tuple[str, ...] = ("reach-v3", "pick-place-v3")
    """Names of the benchmark's tasks, or of its sets of tasks: "all", Meta-World's mt10 and mt50, LIBERO's numbers."""
    episodes: int = 50
    """Successful episodes per task."""
    episodes_of: dict[str, int] = field(default_factory=dict)
    """Another number for some tasks, such as {reach-v3: 150}: each reach episode shows one goal only."""
    size: int = 128
    """Side of the frames, in pixels."""
    seed: int = 0
    """Chooses the initial states, the disturbances and the wordings."""
    noise: float = 0.2
    """Strength of the disturbance (standard deviation, in units of the action); halved with every failed attempt."""
    noise_memory: float = 0.9
    """Share of the disturbance that is carried over from one step to the next."""
    disturbed: float = 0.5
    """Share of the episodes that are disturbed."""
    binary_gripper: bool = True
    """Let the expert only open or close the gripper, as policies do; a few experts need the steps in between."""
    after_success: int = 10
    """Steps that are recorded after the task is solved, so that a policy learns to stay."""
    attempts: int = 10
    """Initial states that are tried for one episode before the expert counts as unable."""
    benchmark: str = "metaworld"
    """Which simulator: metaworld, one of its own with an instruction that decides (metaworld_named, metaworld_sorting,
    metaworld_sorting_shuffled), or libero_spatial, libero_object, libero_goal, libero_10, libero_90."""
    wording: Wording = "training"
    """Those to teach with, or those that evaluations hold out: for questions (`emt couple`), never for a policy."""
    truth_every: int | None = None
    """Also record what is true of the scene, with pictures of the wrist's camera, at every so many steps: what
    `emt couple` makes questions from."""

    def check(self) -> None:
        """Raise `ValueError` on settings that cannot be recorded with."""
        if self.episodes < 1 or self.attempts < 1 or min(self.episodes_of.values(), default=1) < 1:
            raise ValueError(f"episodes {self.episodes} and attempts {self.attempts} must be at least 1, for each task")
        if strangers := set(self.episodes_of) - set(self.tasks):
            raise ValueError(f"episodes_of names tasks that are not recorded: {', '.join(sorted(strangers))}")
        if self.truth_every is not None and self.truth_every < 1:
            raise ValueError(f"truth_every {self.truth_every}: wanted 1 or more, or none")
        if not 16 <= self.size <= 1024:
            raise ValueError(f"size {self.size}: frames of 16 to 1024 pixels can be drawn")
        if not 0 <= self.noise_memory < 1 or not 0 <= self.disturbed <= 1 or self.noise < 0 or self.after_success < 0:
            raise ValueError("wanted noise >= 0, noise_memory in [0, 1), disturbed in [0, 1] and after_success >= 0")

    def episodes_for(self, task: str) -> int:
        return self.episodes_of.get(task, self.episodes)


def demos_command(out: Path, config: DemosConfig = DemosConfig(), processes: int = 2, overwrite: bool = False) -> None:
    """Record demonstrations of scripted experts, in the HDF5 layout of robomimic and LIBERO.

    Only successful episodes are kept; failed attempts are counted. One file a task. A second call goes on from what
    is there; the result is the same whatever the number of processes.

    Examples:
        emt demos --out runs/demos --tasks reach-v3 pick-place-v3 drawer-open-v3
        emt demos --out runs/demos --tasks pick-place-v3 --episodes 50 --size 128 --processes 2
        emt demos --out runs/demos --tasks reach-v3 drawer-open-v3 --episodes-of reach-v3 150
        emt demos --out runs/demos --tasks assembly-v3 --no-binary-gripper
        emt demos --out runs/libero --benchmark libero_object --tasks 0 1 2 3 --episodes 50 --size 224
        emt demos --out runs/told --tasks pick-place-v3 --truth-every 10

    Args:
        out: folder for the result.
        processes: simulators at a time.
        overwrite: replace a result that was made with other settings.
    """
    started = time.monotonic()
    artifact = record_demos(out, config, processes=processes, overwrite=overwrite)
    seconds = time.monotonic() - started
    counts = artifact.counts
    for task, row in counts["tasks"].items():
        print(f"{task:<28}{row['episodes']:>5} episodes {row['frames']:>7} frames {row['failures']:>4} failed attempts")
    print(f"{counts['episodes']} episodes, {counts['frames']} frames in {seconds:.1f} s: {artifact.path}")


def record_demos(out: Path | str, config: DemosConfig, *, processes: int = 2, overwrite: bool = False) -> Artifact:
    """Record `config.episodes` successful episodes of each task into `out`/<task>.hdf5.

    Raises:
        ValueError: on an unknown task (with the nearest name) or impossible settings.
        StageError: where nothing can be rendered, where an expert never succeeds, and as `open_stage` does.
    """
    config = replace(config, tasks=chosen_tasks(open_benchmark(config.benchmark), config.tasks))
    config.check()
    require("h5py", "data")
    with open_stage(out, "demos", config, {}, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        _record_parts(run, config, processes)
        rows = {task: _join(run, config, task) for task in config.tasks}
        totals = {key: sum(row[key] for row in rows.values()) for key in ("episodes", "frames", "attempts", "failures")}
        return run.finish(counts={**totals, "tasks": rows})


@dataclass(frozen=True)
class _Part:
    """Episodes [start, stop) of one task."""

    task: str
    start: int
    stop: int

    @property
    def key(self) -> str:
        return f"{self.task}-{self.start:05d}"


def _parts(config: DemosConfig, task: str) -> list[_Part]:
    episodes = config.episodes_for(task)
    return [_Part(task, s, min(s + EPISODES_A_PART, episodes)) for s in range(0, episodes, EPISODES_A_PART)]


def _record_parts(run: StageRun, config: DemosConfig, processes: int) -> None:
    to_do = [
        part
        for task in config.tasks
        if run.part(task) is None
        for part in _parts(config, task)
        if run.part(part.key) is None
    ]
    total = sum(map(config.episodes_for, config.tasks))
    done = total - sum(part.stop - part.start for part in to_do)
    with progress_bar("demonstrations", total, done) as bar:
        bar.say(to_do[0].task if to_do else "")
        try:
            for part, facts in work_through(to_do, min(processes, len(to_do)), _Recorder, config, run.out / PARTS):
                # Its file stands in the parts' folder already: one that is merged into the task's file in the end.
                run.commit_part(part.key, facts)
                bar.advance(part.stop - part.start)
                bar.say(part.task)
        except WorkerDied as error:
            raise StageError(
                f"{error} while recording (out of memory?); the same command goes on from here."
            ) from error
        except WorkerFailed as error:
            raise StageError(f"the simulator failed while recording:\n{error}") from error


def _part_file(folder: Path, part: _Part) -> Path:
    return folder / f"{part.key}.hdf5"


def _join(run: StageRun, config: DemosConfig, task: str) -> dict[str, int]:
    """Join the parts of one task into its file; what it holds, in numbers."""
    record = run.part(task)
    parts = _parts(config, task)
    if record is None:
        facts = [run.part(part.key) for part in parts]
        assert all(facts), f"parts of {task} are missing"
        row = {key: sum(f[key] for f in facts if f) for key in ("episodes", "frames", "attempts", "failures")}
        everything = range(config.episodes_for(task))
        masks = {
            "train": everything,
            "clean": [i for i in everything if not _is_disturbed(config, i)],
            "disturbed": [i for i in everything if _is_disturbed(config, i)],
        }
        files = [_part_file(run.out / PARTS, part) for part in parts]
        record = run.commit_part(task, row, writers={f"{task}.hdf5": lambda path: merge(files, path, masks)})
    for part in parts:
        _part_file(run.out / PARTS, part).unlink(missing_ok=True)
    return {key: record[key] for key in ("episodes", "frames", "attempts", "failures")}


def _is_disturbed(config: DemosConfig, number: int) -> bool:
    """Spread evenly over the episodes: with a share of a half, every second one."""
    return int((number + 1) * config.disturbed) > int(number * config.disturbed)


class _Recorder:
    """Records parts in one process; keeps the simulation of the last task."""

    def __init__(self, config: DemosConfig, folder: Path) -> None:
        self._config, self._folder = config, folder
        self._benchmark = open_benchmark(config.benchmark)
        self._task = ""
        self._simulation: Simulation | None = None

    def __call__(self, part: _Part) -> dict[str, int]:
        if self._simulation is None or part.task != self._task:
            if self._simulation is not None:
                self._simulation.close()
            self._simulation = self._benchmark.make(part.task, self._config.size)
            self._task = part.task
        return _record_part(self._benchmark, self._simulation, self._config, part, _part_file(self._folder, part))


def _record_part(
    benchmark: Benchmark, simulation: Simulation, config: DemosConfig, part: _Part, path: Path
) -> dict[str, int]:
    h5py = require("h5py", "data")
    wordings = benchmark.instructions(part.task).of(config.wording)
    counts = {"episodes": 0, "frames": 0, "attempts": 0, "failures": 0}
    environment = {"type": 2, "benchmark": config.benchmark, "env_kwargs": {"camera_size": config.size}}
    # In memory first: on a full disk HDF5 does not raise, it crashes.
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        data = write_header(file, task=part.task, instruction=wordings[0], spec=benchmark.spec, environment=environment)
        for number in range(part.start, part.stop):
            wording = wordings[number % len(wordings)]
            for recorded in _attempts(simulation, config, benchmark, part.task, number):
                counts["attempts"] += 1
                if recorded is None:
                    counts["failures"] += 1
                    continue
                write_demo(
                    data,
                    number,
                    replace(recorded.episode, instruction=wording),
                    observations={"proprioception": recorded.proprioception},
                    attributes={"initial_state": recorded.state, "noise": recorded.noise},
                )
                if recorded.truth is not None:
                    recorded.truth.write(data[f"demo_{number}"], benchmark.spec.rate)
                counts["episodes"] += 1
                counts["frames"] += len(recorded.episode.actions)
                break
            else:
                raise StageError(
                    f"the expert of {part.task} did not succeed in {config.attempts} attempts at episode {number} "
                    f"within {benchmark.horizon(part.task)} steps. {_REMEDY}"
                )
        file.flush()
        write_atomic(path, file.id.get_file_image())
    return counts


_REMEDY = "Try --no-binary-gripper (some experts close it halfway), a smaller --noise, or more --attempts."


@dataclass(frozen=True)
class _Recorded:
    episode: Episode
    proprioception: NDArray[np.float32]
    state: int
    noise: float
    truth: Recorder | None


def _attempts(
    simulation: Simulation, config: DemosConfig, benchmark: Benchmark, task: str, number: int
) -> Iterator[_Recorded | None]:
    """Attempts at one episode, each from its own initial state; None for a failed one."""
    for attempt in range(config.attempts):
        state = training_state(config.seed, number * config.attempts + attempt)
        noise = config.noise * 0.5**attempt if _is_disturbed(config, number) else 0.0
        yield _record_episode(simulation, config, benchmark, task, state, noise)


def _record_episode(
    simulation: Simulation, config: DemosConfig, benchmark: Benchmark, task: str, state: int, noise: float
) -> _Recorded | None:
    random = np.random.default_rng([config.seed, state])
    gripper = benchmark.spec.gripper
    simulation.reset(state)
    truth = _recorder(simulation, config)
    frames: list[NDArray[np.uint8]] = []
    wanted: list[NDArray[np.float32]] = []
    arm: list[NDArray[np.float32]] = []
    disturbance: NDArray[Any] | None = None
    left = -1
    for _ in range(benchmark.horizon(task)):
        action = simulation.expert()
        if gripper is not None and config.binary_gripper:
            action[gripper] = 1.0 if action[gripper] > 0 else -1.0
        frames.append(simulation.frame())
        if truth is not None:
            truth.step(frames[-1])
        wanted.append(action)
        arm.append(simulation.proprioception())
        executed = action
        if noise > 0:
            # A stationary first-order process: `noise` is its standard deviation, whatever its memory.
            fresh = random.standard_normal(len(action)) * noise
            memory = config.noise_memory
            disturbance = fresh if disturbance is None else memory * disturbance + np.sqrt(1 - memory**2) * fresh
            executed = action + disturbance.astype(np.float32)
            if gripper is not None:
                executed[gripper] = action[gripper]
        solved = simulation.step(executed)
        if left < 0 and solved:
            left = config.after_success
        if left == 0:
            break
        if left > 0:
            left -= 1
    if left < 0:
        return None
    # The instruction is chosen by whoever numbers the episodes.
    episode = Episode(str(state), task, task, np.stack(frames), np.stack(wanted))
    return _Recorded(episode, np.stack(arm), state, noise, truth)


def _recorder(simulation: Simulation, config: DemosConfig) -> Recorder | None:
    """Raises: StageError, where truth is wanted of a simulator that cannot tell it."""
    if config.truth_every is None:
        return None
    if not isinstance(simulation, Truthful):
        raise StageError(f"{config.benchmark} cannot say what is true of its scenes: leave --truth-every out")
    return Recorder(simulation.truth(), config.truth_every)
