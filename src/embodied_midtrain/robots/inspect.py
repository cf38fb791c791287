"""`emt robots inspect`: are these robot data what one takes them for? Shapes, rates, ranges, language, faults."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from embodied_midtrain.artifacts import Skips, write_json
from embodied_midtrain.episodes import BadEpisode, Episode, Robots
from embodied_midtrain.progress import console, progress_bar
from embodied_midtrain.robots.opening import open_robots

CONSTANT = 1e-3
"""Between the 1st and 99th percentile: a dimension that moves less is called near-constant."""
_DARK, _FLAT = 5.0, 2.0
"""Mean brightness and spread below which a frame shows nothing."""


def inspect_robots(robots: Robots, skips: Skips, *, limit: int | None = None) -> dict[str, Any]:
    """Facts on robot data, and warnings in plain words.

    Args:
        skips: the list that the reader adds to.
        limit: episodes to look at; None for all.
    """
    actions: list[NDArray[np.float32]] = []
    lengths: list[int] = []
    sizes: Counter[str] = Counter()
    tasks: Counter[str] = Counter()
    words: Counter[str] = Counter()
    empty = 0
    with progress_bar(f"inspect {robots.name}", limit) as bar:
        for episode in itertools.islice(robots, limit):
            bar.advance()
            try:
                empty += _shows_nothing(episode)
            except BadEpisode as error:
                skips.add(error.reason, episode.id, error.detail)
                continue
            lengths.append(len(episode.frames))
            sizes["x".join(map(str, episode.frames.shape[2:0:-1]))] += 1
            tasks[episode.task] += 1
            words[episode.instruction] += 1
            actions.append(episode.actions)
    spec = robots.spec
    rows = np.concatenate(actions) if actions else np.zeros((0, spec.width), np.float32)
    facts: dict[str, Any] = {
        "name": robots.name,
        "episodes": len(lengths),
        "frames": sum(lengths),
        "length": _spread(lengths),
        "frame_sizes": dict(sizes.most_common()),
        "tasks": dict(tasks.most_common(50)),
        "instructions": {"different": len(words), "commonest": [text for text, _ in words.most_common(5)]},
        "spec": spec.to_json(),
        "actions": [_dimension(rows[:, n], name, spec.low[n], spec.high[n]) for n, name in enumerate(spec.names)]
        if len(rows)
        else [],
        "skipped": skips.counts(),
        "faults": skips.rows,
    }
    facts["warnings"] = _warnings(facts, robots, empty, sizes)
    return facts


def _shows_nothing(episode: Episode) -> bool:
    frames = episode.frames[np.unique([0, len(episode.frames) // 2, len(episode.frames) - 1])]
    return bool(np.any(frames.mean(axis=(1, 2, 3)) < _DARK) or np.any(frames.std(axis=(1, 2, 3)) < _FLAT))


def _spread(values: list[int]) -> dict[str, float] | None:
    return {"least": min(values), "median": float(np.median(values)), "most": max(values)} if values else None


def _dimension(values: NDArray[np.float32], name: str, low: float, high: float) -> dict[str, Any]:
    q01, q50, q99 = np.quantile(values, [0.01, 0.5, 0.99]).tolist()
    outside = float(((values < low - 1e-6) | (values > high + 1e-6)).mean())
    return {
        "name": name,
        "least": float(values.min()),
        "q01": q01,
        "median": q50,
        "q99": q99,
        "most": float(values.max()),
        "outside_bounds": outside,
        "near_constant": q99 - q01 < CONSTANT,
        "different_values": int(min(len(np.unique(values[:10_000])), 10_000)),
    }


def _warnings(facts: dict[str, Any], robots: Robots, empty: int, sizes: Counter[str]) -> list[str]:
    spec = robots.spec
    found = []
    if not facts["episodes"]:
        found.append("there is no usable episode")
    if spec.kind == "unknown":
        found.append(
            "the data do not say what their actions mean: enough to compare frames with a pool; to train a policy put "
            "action_spec.json (fields of ActionSpec) beside them"
        )
    if spec.rate <= 0:
        found.append("the rate is not known")
    for row in facts["actions"]:
        if row["near_constant"]:
            found.append(f"{row['name']} hardly moves ({row['q01']:.4g} to {row['q99']:.4g})")
        if row["outside_bounds"] > 0:
            found.append(f"{row['name']} leaves its bounds in {row['outside_bounds']:.1%} of all steps")
    if spec.gripper is not None and facts["actions"]:
        row = facts["actions"][spec.gripper]
        if row["q01"] >= 0 > spec.low[spec.gripper]:
            found.append(f"{row['name']} is never negative, though its bounds say so: is 0 open, or closed?")
    if len(sizes) > 1:
        found.append(f"frames have {len(sizes)} sizes: {', '.join(sizes)}")
    if empty:
        found.append(f"{empty} episodes hold a frame that is black or of one colour")
    if missing := facts["skipped"].get("no instruction", 0):
        found.append(f"{missing} episodes have no instruction and are left out")
    return found


def inspect_command(
    data: Path, camera: str | None = None, split: str = "train", limit: int = 1000, out: Path | None = None
) -> None:
    """Show what robot data hold: episodes, frames, instructions, ranges of actions, and what looks wrong.

    Examples:
        emt robots inspect --data runs/quickstart/demos
        emt robots inspect --data data/lerobot/pusht --camera observation.image
        emt robots inspect --data bridge_dataset/1.0.0 --limit 0 --out facts.json

    Args:
        data: a demos artifact, HDF5 (robomimic, LIBERO), or the folder of a LeRobot, RLDS or CALVIN data set.
        camera: which pictures to take where the data hold several.
        split: of an RLDS data set.
        limit: episodes to look at; 0 for all.
        out: a JSON file for the facts, with every fault listed.
    """
    skips = Skips()
    robots = open_robots(data, skips, camera=camera, split=split)
    facts = inspect_robots(robots, skips, limit=limit or None)
    length = facts["length"]
    print(
        f"{facts['name']}: {facts['episodes']} episodes, {facts['frames']} frames"
        + (f" ({length['least']} to {length['most']} each), {robots.spec.rate:g} a second" if length else "")
    )
    print(
        f"frames: {', '.join(facts['frame_sizes']) or 'none'}; tasks: {len(facts['tasks'])}; "
        f"instructions: {facts['instructions']['different']}, such as {facts['instructions']['commonest'][:2]}"
    )
    table = Table(title=f"actions: {robots.spec.kind}, {robots.spec.frame}, rotation {robots.spec.rotation}")
    for column in ("dimension", "least", "1 %", "median", "99 %", "most"):
        table.add_column(column, justify="left" if column == "dimension" else "right")
    for row in facts["actions"]:
        numbers = (row[key] for key in ("least", "q01", "median", "q99", "most"))
        table.add_row(row["name"], *(f"{number:.4g}" for number in numbers))
    console.print(table)
    for warning in facts["warnings"]:
        console.print(f"[yellow]![/yellow] {warning}", highlight=False)
    print(f"skipped: {skips.summary()}")
    for fault in facts["faults"][:10]:
        print(f"  {fault['reason']}: {fault['where']} {fault['detail']}".rstrip())
    if out is not None:
        write_json(out, facts)
