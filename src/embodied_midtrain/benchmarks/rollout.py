"""`emt rollout`: roll a policy out in closed loop, from the same initial states for every policy.

Episodes are played in fixed groups whose frames go through the policy as one batch, so that results depend neither
on the number of processes nor on where a run was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Artifact, StageError, StageRun, atomic_path, open_stage, read_json, write_json
from embodied_midtrain.benchmarks.actors import ExpertActor, RandomActor
from embodied_midtrain.benchmarks.protocol import (
    Actor,
    Benchmark,
    Wording,
    chosen_tasks,
    evaluation_state,
    open_benchmark,
)
from embodied_midtrain.benchmarks.team import Crash, Seen, Team
from embodied_midtrain.benchmarks.video import write_mp4
from embodied_midtrain.intervals import too_few, wilson
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.robots.actions import check_specs

EPISODES, RESULTS = "episodes.json", "results.json"
TABLE = "episodes.parquet"
"""The same as `EPISODES`, one row an episode, for whoever reads tables."""
STARTS = "starts.json"
"""The initial states that were played, by task: their numbers, and what identifies each as it was."""


@dataclass(frozen=True)
class RolloutConfig:
    """What to roll out on."""

    tasks: tuple[str, ...] = ("reach-v3", "pick-place-v3")
    """Names of the benchmark's tasks, or of its sets of tasks: "all", Meta-World's mt10 and mt50, LIBERO's numbers."""
    episodes: int = 20
    """Episodes per task; episode i starts from the same state for every policy."""
    wording: Wording = "training"
    """Instructions as in the demonstrations, or paraphrases that no demonstration had."""
    horizon: int = 0
    """Steps after which an episode has failed; 0: the benchmark's own for each task."""
    group: int = 10
    """Episodes that are played together, their frames one batch for the policy."""
    videos: int = 2
    """Episodes of each task that are filmed."""
    benchmark: str = "metaworld"
    """Which simulator: metaworld, one of its own with an instruction that decides (metaworld_named, metaworld_sorting,
    metaworld_sorting_shuffled), libero_spatial, libero_object, libero_goal, libero_10, libero_90, or
    "package.module:Class" of yours."""
    states: tuple[int, ...] = ()
    """Initial states to go round in, by number, in place of the evaluation's own; every round has another wording.
    Demonstrations carry theirs as `initial_state`: to see whether a policy has learnt what it was shown."""

    def check(self) -> None:
        """Raise `ValueError` on settings that nothing can be played with."""
        if self.episodes < 1 or self.group < 1:
            raise ValueError(f"episodes {self.episodes} and group {self.group} must be at least 1")
        if self.horizon < 0 or self.videos < 0:
            raise ValueError(f"horizon {self.horizon} and videos {self.videos} must not be negative")
        if len(set(self.states)) < len(self.states) or min(self.states, default=0) < 0:
            raise ValueError(f"states {self.states}: wanted different numbers, none of them negative")

    def state(self, episode: int) -> int:
        """Number of the initial state of an episode."""
        return self.states[episode % len(self.states)] if self.states else evaluation_state(episode)

    def wording_of(self, episode: int) -> int:
        """Which of a task's wordings an episode has, counted round."""
        return episode // len(self.states) if self.states else episode


@dataclass(frozen=True)
class EpisodeResult:
    """One episode.

    `start` identifies the initial state as it was, `state` is its number; `error` holds a simulator's last words
    where it failed twice (the episode then counts as failed); `video` is a path within the artifact.
    """

    task: str
    episode: int
    state: int
    start: str
    instruction: str
    success: bool
    steps: int
    error: str = ""
    video: str = ""


@dataclass(frozen=True)
class TaskResult:
    """Successes over episodes with Wilson's 95 % interval; `note` says where that is too wide to build on."""

    successes: int
    episodes: int
    success: float
    low: float
    high: float
    note: str = ""

    @classmethod
    def of(cls, outcomes: Sequence[bool]) -> TaskResult:
        low, high = wilson(sum(outcomes), len(outcomes))
        return cls(sum(outcomes), len(outcomes), sum(outcomes) / len(outcomes), low, high, too_few(low, high))


def read_episodes(artifact: Artifact) -> list[EpisodeResult]:
    """The episodes of an `emt rollout` artifact, in the order of its tasks."""
    return [EpisodeResult(**row) for row in read_json(artifact.file(EPISODES))]


def rollout_command(
    policy: str, out: Path, config: RolloutConfig = RolloutConfig(), processes: int = 2, overwrite: bool = False
) -> None:
    """Roll a policy out in closed loop and count its successes, with 95 % intervals and videos.

    A second call goes on from what is there; the result is the same whatever the number of processes.

    Examples:
        emt rollout --policy runs/mine/policy --out runs/mine/rollouts --tasks reach-v3 pick-place-v3 --episodes 20
        emt rollout --policy runs/mine/policy --out runs/mine/held-out --wording held-out
        emt rollout --policy expert --out runs/ceiling --tasks reach-v3
        emt rollout --policy random --out runs/floor --tasks reach-v3
        emt rollout --policy runs/mine/policy --out runs/mine/mt10 --tasks mt10 --episodes 50
        emt rollout --policy expert --out runs/libero --benchmark libero_10 --tasks all --episodes 50

    Args:
        policy: folder of 'emt finetune'; or "expert", the benchmark's scripted expert, or "random".
        out: folder for the result.
        processes: simulators at a time.
        overwrite: replace a result that was made with another policy or other settings.
    """
    artifact = rollout(out, config, open_actor(policy, config), processes=processes, overwrite=overwrite)
    results = read_json(artifact.file(RESULTS))
    names = artifact.manifest["config"]["tasks"]
    width = max(28, *(len(name) + 1 for name in names))
    for name, row in [*((task, results["tasks"][task]) for task in names), ("all", results["all"])]:
        share = f"{row['success']:.0%} ({row['low']:.0%} to {row['high']:.0%})"
        print(f"{name:<{width}}{row['successes']:>4} of {row['episodes']:<5}{share:<20}{row['note']}".rstrip())
    if crashed := artifact.counts["crashed"]:
        print(f"{crashed} episodes count as failed because their simulator crashed twice: see {EPISODES}")


def open_actor(policy: str, config: RolloutConfig) -> Actor:
    """The policy in a folder, "expert" or "random".

    Raises:
        StageError: where there is no finished policy.
    """
    spec = open_benchmark(config.benchmark).spec
    if policy == "expert":
        return ExpertActor(spec)
    if policy == "random":
        return RandomActor(spec)
    from embodied_midtrain.policies.opening import load_actor

    return load_actor(policy)


def rollout(
    out: Path | str, config: RolloutConfig, actor: Actor, *, processes: int = 2, overwrite: bool = False
) -> Artifact:
    """Play `config.episodes` episodes of each task into `out`: episodes (JSON and Parquet), their starts,
    results.json, videos.

    Raises:
        ValueError: on an unknown task (with the nearest name) or impossible settings.
        StageError: where the actor's actions do not mean what the benchmark's do, are no numbers, or nothing can be
            rendered; where initial states repeat; and as `open_stage` does.
    """
    config.check()
    benchmark = open_benchmark(config.benchmark)
    config = replace(config, tasks=chosen_tasks(benchmark, config.tasks))
    check_specs(benchmark.spec, actor.spec, wanted_by=benchmark.name, given_by="the policy")
    if not 1 <= actor.executed <= actor.chunk:
        raise ValueError(f"the policy executes {actor.executed} of {actor.chunk} predicted actions: wanted 1 to all")
    inputs = {"policy": actor.identity}
    with open_stage(out, "rollout", config, inputs, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        episodes = [EpisodeResult(**row) for row in _play_all(run, config, benchmark, actor, processes)]
        if not config.states:
            _check_starts(episodes)
        by_task = {task: TaskResult.of([e.success for e in episodes if e.task == task]) for task in config.tasks}
        everything = TaskResult.of([e.success for e in episodes])
        write_json(run.file(EPISODES), [asdict(e) for e in episodes])
        write_json(run.file(STARTS), _starts(config, episodes))
        with atomic_path(run.file(TABLE)) as temporary:
            pq.write_table(pa.Table.from_pylist([asdict(e) for e in episodes]), temporary)
        write_json(run.file(RESULTS), {"tasks": by_task, "all": everything, "wording": config.wording})
        crashed = sum(bool(e.error) for e in episodes)
        counts = {"episodes": len(episodes), "successes": everything.successes, "crashed": crashed}
        return run.finish(counts=counts)


@dataclass(frozen=True)
class _Group:
    """Episodes `numbers` of one task."""

    task: str
    numbers: range

    @property
    def key(self) -> str:
        return f"{self.task}-{self.numbers.start:05d}"


def _groups(config: RolloutConfig) -> Iterator[_Group]:
    for task in config.tasks:
        for start in range(0, config.episodes, config.group):
            yield _Group(task, range(start, min(start + config.group, config.episodes)))


def _play_all(
    run: StageRun, config: RolloutConfig, benchmark: Benchmark, actor: Actor, processes: int
) -> Iterator[dict[str, Any]]:
    total = len(config.tasks) * config.episodes
    with (
        Team(config.benchmark, max(1, min(processes, config.group))) as team,
        progress_bar("rollouts", total) as bar,
    ):
        solved = played = 0
        for group in _groups(config):
            record = run.part(group.key)
            if record is None:
                bar.say(group.task)
                game = _Game(team, benchmark, actor, config, group)
                rows = game.play()
                rate = benchmark.spec.rate / actor.executed
                clips = {row.video: game.clips[row.episode] for row in rows if row.video}
                writers = {name: partial(write_mp4, frames=frames, rate=rate) for name, frames in clips.items()}
                record = run.commit_part(group.key, {"episodes": [asdict(row) for row in rows]}, writers)
            yield from record["episodes"]
            played += len(group.numbers)
            solved += sum(row["success"] for row in record["episodes"])
            bar.advance(len(group.numbers))
            bar.say(f"{group.task}, {solved} of {played} solved")


@dataclass
class _Game:
    """One group of episodes being played; a seat is an episode's place in the group."""

    team: Team
    benchmark: Benchmark
    actor: Actor
    config: RolloutConfig
    group: _Group
    clips: dict[int, list[NDArray[np.uint8]]] = field(default_factory=dict)

    def play(self) -> list[EpisodeResult]:
        """The group's episodes. A crash of a simulator is tried again from the start, once."""
        try:
            return self._play(final=False)
        except Crash:
            return self._play(final=True)

    def _play(self, final: bool) -> list[EpisodeResult]:
        task, actor = self.group.task, self.actor
        horizon = self.config.horizon or self.benchmark.horizon(task)
        self.clips = {n: [] for n in self.group.numbers if n < self.config.videos}
        wordings = self.benchmark.instructions(task).of(self.config.wording)
        words = {s: wordings[self.config.wording_of(n) % len(wordings)] for s, n in enumerate(self.group.numbers)}
        states = {seat: self.config.state(n) for seat, n in enumerate(self.group.numbers)}
        errors: dict[int, str] = {}

        def survived(ask: Any, *arguments: Any) -> dict[int, Seen]:
            try:
                seen: dict[int, Seen] = ask(*arguments)
                return seen
            except Crash as crash:
                if not final:
                    raise
                errors.update(crash.words)
                return crash.others

        live = survived(self.team.start, task, actor.size, states)
        starts = {seat: seen.start for seat, seen in live.items()}
        self._film(live)
        steps, solved = dict.fromkeys(states, 0), dict.fromkeys(states, False)
        while live:
            counts = {seat: min(actor.executed, horizon - steps[seat]) for seat in sorted(live)}
            live = survived(self.team.go, self._decide(live, words, counts))
            self._film(live)
            for seat, seen in live.items():
                steps[seat] += seen.steps
                solved[seat] = seen.solved
            live = {seat: seen for seat, seen in live.items() if not seen.solved and steps[seat] < horizon}
        return [
            EpisodeResult(
                task=task,
                episode=n,
                state=states[seat],
                start=starts.get(seat, ""),
                instruction=words[seat],
                success=solved[seat],
                steps=steps[seat],
                error=errors.get(seat, ""),
                video=f"videos/{task}-{n:03d}.mp4" if self.clips.get(n) else "",
            )
            for seat, n in enumerate(self.group.numbers)
        ]

    def _decide(
        self, live: dict[int, Seen], words: dict[int, str], counts: dict[int, int]
    ) -> dict[int, NDArray[np.float32] | int]:
        if isinstance(self.actor, ExpertActor):
            return dict(counts)
        seats = sorted(live)
        frames = np.stack([live[seat].frame for seat in seats])
        actions = np.asarray(self.actor.act(frames, [words[seat] for seat in seats]), np.float32)
        wanted = (len(seats), self.actor.chunk, self.benchmark.spec.width)
        if actions.shape != wanted:
            raise StageError(f"the policy gave actions of shape {actions.shape}, wanted {wanted}")
        if not np.isfinite(actions).all():
            raise StageError("the policy gives actions that are no numbers: its training has diverged; train it again")
        return {seat: actions[i, : counts[seat]] for i, seat in enumerate(seats)}

    def _film(self, seen: dict[int, Seen]) -> None:
        for seat, what in seen.items():
            if (clip := self.clips.get(self.group.numbers[seat])) is not None:
                clip.append(what.frame)


def _starts(config: RolloutConfig, episodes: Sequence[EpisodeResult]) -> dict[str, Any]:
    rows: dict[str, list[dict[str, Any]]] = {task: [] for task in config.tasks}
    for e in episodes:
        rows[e.task].append({"episode": e.episode, "state": e.state, "start": e.start})
    return {"benchmark": config.benchmark, "tasks": rows}


def _check_starts(episodes: Sequence[EpisodeResult]) -> None:
    """Raise `StageError` where two episodes of a task began alike: they would count one try twice."""
    seen: dict[tuple[str, str], int] = {}
    for e in episodes:
        first = seen.setdefault((e.task, e.start), e.episode) if e.start else e.episode
        if first != e.episode:
            raise StageError(f"{e.task}: episodes {first} and {e.episode} begin in the same state; fix the benchmark.")
