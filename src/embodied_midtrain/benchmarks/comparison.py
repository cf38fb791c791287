"""`emt rollouts compare` and `emt rollouts play`: several policies on the same episodes, side by side.

Policies may be variants of one study, or one policy at different steps of its training. Each is compared with the
first, episode by episode: exact McNemar and a paired bootstrap within tasks (`studies.intervals.compare`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
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
from embodied_midtrain.studies.intervals import compare

COMPARISON = "comparison.json"


def compare_rollouts(played: Mapping[str, Artifact]) -> dict[str, Any]:
    """Success of each by task and over all, and each against the first on the episodes that both have.

    Raises:
        StageError: where there are fewer than two, or where one was played elsewhere or from other initial states.
    """
    if len(played) < 2:
        raise StageError("a comparison needs the rollouts of at least two policies")
    rows = {name: read_episodes(artifact) for name, artifact in played.items()}
    first, *others = played
    comparisons = []
    for other in others:
        for what in ("benchmark", "wording", "horizon"):
            a, b = (played[name].manifest["config"].get(what) for name in (first, other))
            if a != b:
                raise StageError(f"{first} and {other} were played with different {what}: {a!r} and {b!r}")
        comparisons.append({"policy": other, "against": first, **_against(other, first, rows)})
    return {"policies": {name: _results(episodes) for name, episodes in rows.items()}, "comparisons": comparisons}


def _results(episodes: Sequence[EpisodeResult]) -> dict[str, Any]:
    tasks: dict[str, list[bool]] = {}
    for e in episodes:
        tasks.setdefault(e.task, []).append(e.success)
    by_task = {task: asdict(TaskResult.of(outcomes)) for task, outcomes in tasks.items()}
    return {"tasks": by_task, "all": asdict(TaskResult.of([e.success for e in episodes]))}


def _against(other: str, first: str, rows: Mapping[str, Sequence[EpisodeResult]]) -> dict[str, Any]:
    a, b = ({(e.task, e.state): e for e in rows[name]} for name in (other, first))
    shared = [key for key in a if key in b]
    if not shared:
        raise StageError(f"{other} and {first} have no episode in common: roll both out on the same tasks")
    for task, state in shared:
        starts = [e.start for e in (a[task, state], b[task, state]) if e.start]
        if len(set(starts)) > 1:
            raise StageError(
                f"{other} and {first} did not begin {task} (state {state}) alike: another version of the simulator? "
                "Roll both out on one machine."
            )
    found = compare(
        [a[key].success for key in shared],
        [b[key].success for key in shared],
        tasks=[task for task, _ in shared],
        name_a=other,
        name_b=first,
    )
    return {"pairs": len(shared), **asdict(found)}


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
            beside = f"{span:<26}p = {c['p']:.2g}, {c['outcome']}"
        lines.append(f"{name:<{width}}{share:<28}{beside}  {row['note']}".rstrip())
    return "\n".join([*lines, *(row["verdict"] for row in found["comparisons"])])
