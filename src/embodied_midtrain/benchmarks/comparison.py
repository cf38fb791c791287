"""`emt rollouts compare` and `emt rollouts play`: several policies on the same episodes, side by side.

Policies may be variants of one study, or one policy at different steps of its training. Each is compared with the
first, episode by episode: exact McNemar and a paired bootstrap within tasks (`intervals.compare`), and of several
tests only what survives all of them (`intervals.corrected`). Recipes and studies compare their variants likewise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from embodied_midtrain.artifacts import Artifact, StageError, write_json
from embodied_midtrain.benchmarks.rollout import (
    EpisodeResult,
    RolloutConfig,
    TaskResult,
    open_actor,
    read_episodes,
    rollout,
)
from embodied_midtrain.intervals import Difference, compare, corrected

COMPARISON = "comparison.json"


@dataclass(frozen=True)
class Record:
    """What a variant's policies have played.

    Attributes:
        episodes: by task, initial state, number and training seed.
        lengths: subtasks done in a row of each, where the benchmark counts them (CALVIN).
    """

    episodes: dict[tuple[str, int, int, int], EpisodeResult] = field(default_factory=dict)
    lengths: list[float] = field(default_factory=list)

    def add(self, episodes: Iterable[EpisodeResult], seed: int = 0, lengths: Iterable[float] = ()) -> None:
        self.episodes.update({(e.task, e.state, e.episode, seed): e for e in episodes})
        self.lengths.extend(lengths)

    def all(self) -> TaskResult:
        return TaskResult.of([e.success for e in self.episodes.values()])

    def tasks(self) -> dict[str, TaskResult]:
        tasks: dict[str, list[bool]] = {}
        for e in self.episodes.values():
            tasks.setdefault(e.task, []).append(e.success)
        return {task: TaskResult.of(outcomes) for task, outcomes in tasks.items()}

    def by_seed(self) -> dict[int, float]:
        """Success with each training seed."""
        return _by_seed({key: e.success for key, e in self.episodes.items()})

    def length(self) -> float | None:
        return fmean(self.lengths) if self.lengths else None


def _by_seed(values: Mapping[tuple[str, int, int, int], float]) -> dict[int, float]:
    seeds: dict[int, list[float]] = {}
    for (*_, seed), value in values.items():
        seeds.setdefault(seed, []).append(value)
    return {seed: fmean(own) for seed, own in seeds.items()}


def against(a: Record, b: Record, name_a: str, name_b: str) -> tuple[Difference, dict[int, float]]:
    """The test on the episodes that both have played, and the difference with each training seed.

    Raises:
        StageError: where there are none, or a pair did not begin in the same state.
    """
    pairs = {key: (e, b.episodes[key]) for key, e in a.episodes.items() if key in b.episodes}
    if not pairs:
        raise StageError(f"{name_a} and {name_b} have no episode in common: roll both out on the same tasks")
    for one, other in pairs.values():
        if one.start and other.start and one.start != other.start:
            raise StageError(
                f"{name_a} and {name_b} did not begin {one.task} (state {one.state}) alike: another version of "
                "the simulator? Roll both out on one machine."
            )
    left, right = zip(*((one.success, other.success) for one, other in pairs.values()), strict=True)
    found = compare(left, right, [task for task, *_ in pairs])
    return found, _by_seed({key: one.success - other.success for key, (one, other) in pairs.items()})


def compare_rollouts(played: Mapping[str, Artifact]) -> dict[str, Any]:
    """Success of each by task and over all, and each against the first on the episodes that both have.

    Raises:
        StageError: where there are fewer than two, or where one was played elsewhere or from other initial states.
    """
    if len(played) < 2:
        raise StageError("a comparison needs the rollouts of at least two policies")
    records = {name: Record() for name in played}
    for name, artifact in played.items():
        records[name].add(read_episodes(artifact))
    first, *others = played
    for other in others:
        for what in ("benchmark", "wording", "horizon"):
            a, b = (played[name].manifest["config"].get(what) for name in (first, other))
            if a != b:
                raise StageError(f"{first} and {other} were played with different {what}: {a!r} and {b!r}")
    found = corrected([against(records[other], records[first], other, first)[0] for other in others])
    return {
        "policies": {
            name: {"tasks": {task: asdict(row) for task, row in own.tasks().items()}, "all": asdict(own.all())}
            for name, own in records.items()
        },
        "comparisons": [
            {"policy": other, "against": first, **asdict(one)}
            | {"outcome": one.outcome, "verdict": one.verdict(other, first)}
            for other, one in zip(others, found, strict=True)
        ],
    }


def compare_command(rollouts: tuple[Path, ...], out: Path | None = None) -> None:
    """Compare finished rollouts with the first of them, on the same episodes: a table, and JSON with --out.

    Examples:
        emt rollouts compare --rollouts runs/quickstart/rollouts/off-the-shelf runs/quickstart/rollouts/selected
        emt rollouts compare --rollouts runs/a runs/b runs/c --out runs/comparison.json

    Args:
        rollouts: folders of 'emt rollout'; the first is the reference.
        out: file for the same as JSON.
    """
    names = _names([str(folder) for folder in rollouts])
    found = compare_rollouts(
        {name: Artifact.open(folder, "rollout") for name, folder in zip(names, rollouts, strict=True)}
    )
    if out is not None:
        write_json(out, found)
    print(_table(found))


def play_command(
    policies: tuple[str, ...],
    out: Path,
    config: RolloutConfig = RolloutConfig(),
    processes: int = 2,
    overwrite: bool = False,
) -> None:
    """Roll several policies out on the same episodes and compare them with the first.

    Each has a folder of its own below --out; comparison.json stands beside them. Policies may be one policy's
    checkpoints: the table then shows success while it was trained. A second call goes on from what is there.

    Examples:
        emt rollouts play --policies runs/a/policy runs/b/policy --out runs/both --tasks reach-v3 --episodes 50

    Args:
        policies: folders of 'emt finetune'; the first is the reference.
        out: folder for the results.
        processes: simulators at a time.
        overwrite: replace results that were made with another policy or other settings.
    """
    played = {
        name: rollout(out / name, config, open_actor(policy, config), processes=processes, overwrite=overwrite)
        for name, policy in zip(_names(policies), policies, strict=True)
    }
    found = compare_rollouts(played)
    write_json(out / COMPARISON, found)
    print(_table(found))


def _names(paths: Sequence[str]) -> list[str]:
    """As much of the end of each path as tells them apart.

    Raises:
        ValueError: where two are the same.
    """
    parts = [Path(path).parts for path in paths]
    for count in range(1, max(map(len, parts), default=1) + 1):
        names = ["-".join(p[-count:]).strip("/") for p in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"the same folder is named twice in: {' '.join(paths)}")


def _table(found: dict[str, Any]) -> str:
    against = {row["policy"]: row for row in found["comparisons"]}
    width = max(len(name) for name in found["policies"]) + 2
    lines = [f"{'':<{width}}{'success':<28}{'against the first':<34}"]
    for name, results in found["policies"].items():
        row = results["all"]
        share = f"{row['successes']} of {row['episodes']}, {row['success']:.0%} ({row['low']:.0%} to {row['high']:.0%})"
        beside = ""
        if name in against:
            c = against[name]
            span = f"{100 * c['difference']:+.0f} points ({100 * c['low']:+.0f} to {100 * c['high']:+.0f})"
            holm = f", Holm {c['p_adjusted']:.2g}" if c["tests"] > 1 else ""
            beside = f"{span:<26}p = {c['p']:.2g}{holm}, {c['outcome']}"
        lines.append(f"{name:<{width}}{share:<28}{beside}  {row['note']}".rstrip())
    return "\n".join([*lines, *(row["verdict"] for row in found["comparisons"])])
