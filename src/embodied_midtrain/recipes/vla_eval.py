"""Evaluation by vla-eval: the commands to give, and what they found.

A recipe starts no containers. For each policy it writes vla-eval's config into the run, with a results folder of its
own, and says the two commands; its next call reads the results that are there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from embodied_midtrain.artifacts import Artifact, StageError, read_json, write_atomic
from embodied_midtrain.benchmarks.rollout import EpisodeResult
from embodied_midtrain.config import load_yaml
from embodied_midtrain.recipes.benchmarks import Arena
from embodied_midtrain.serving.protocol import open_protocol

PROTOCOL, COMMANDS = "protocol.yaml", "commands.txt"


@dataclass(frozen=True)
class Played:
    """What vla-eval has found so far.

    Attributes:
        complete: whether every benchmark of the protocol has been played to its end.
        lengths: subtasks done in a row of each episode, where the benchmark counts them (CALVIN).
    """

    episodes: tuple[EpisodeResult, ...] = ()
    complete: bool = False
    lengths: tuple[float, ...] = ()


def write_orders(folder: Path, policy: Path, benchmark: Arena, factor: float = 1.0) -> tuple[str, ...]:
    """Write vla-eval's config and the commands for a policy; returns the commands.

    Args:
        policy: folder of 'emt finetune'. Results of another policy are not taken for this one's.
        factor: on the number of episodes.
    """
    known = open_protocol(benchmark.protocol)
    values = load_yaml(known.path)
    values["output_dir"] = str(results_of(folder, policy).resolve())
    if factor != 1.0:
        for entry in values["benchmarks"]:
            entry["episodes_per_task"] = _times(entry.get("episodes_per_task", 1), factor)
            params = entry.get("params", {})
            if "num_sequences" in params:
                params["num_sequences"] = _times(params["num_sequences"], factor)
    text = yaml.safe_dump(values, sort_keys=False)
    config = (folder / PROTOCOL).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not config.is_file() or config.read_text() != text:
        write_atomic(config, text)
    serve = ["emt", "serve", str(policy.resolve()), "--benchmark", str(config)]
    commands = (
        shlex.join([*serve, "--convert"] if benchmark.convert else serve),
        shlex.join(["vla-eval", "run", "--config", str(config)]),
    )
    write_atomic(folder / COMMANDS, "\n".join(commands) + "\n")
    return commands


def _times(count: int, factor: float) -> int:
    return max(1, round(count * factor))


def results_of(folder: Path, policy: Path) -> Path:
    """Where vla-eval puts the results of a policy as it is now."""
    return folder / f"results-{Artifact.open(policy, 'finetune').fingerprint[:12]}"


def read_played(folder: Path, policy: Path) -> Played:
    """The results that vla-eval has written for a policy; empty where there are none.

    Raises:
        StageError: on a result file that is none.
    """
    try:
        found = sorted(results_of(folder, policy).glob("*_aggregate.json"))
        wanted = len(load_yaml(folder / PROTOCOL)["benchmarks"])
    except (StageError, ValueError):
        return Played()
    episodes: list[EpisodeResult] = []
    lengths: list[float] = []
    complete = len(found) == wanted
    for path in found:
        try:
            facts = read_json(path)
            tasks = facts["tasks"]
            rows = [(task["task"], number, row) for task in tasks for number, row in enumerate(task["episodes"])]
            numbers = _sequences([task["task"] for task in tasks]) if len(rows) == len(tasks) else {}
            stem = path.name.removesuffix("_aggregate.json")
            for task, number, row in rows:
                episodes.append(_episode(stem, numbers[task], row) if numbers else _episode(task, number, row))
                if "completed_subtasks" in row["metrics"]:
                    lengths.append(float(row["metrics"]["completed_subtasks"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StageError(f"{path} is no result of vla-eval: {error!r}; move it away and play again.") from error
        complete = complete and not facts.get("partial")
    return Played(tuple(episodes), complete and bool(episodes), tuple(lengths))


def _sequences(tasks: Sequence[str]) -> dict[str, int]:
    """Numbers of tasks that differ by nothing else, as CALVIN's sequences (seq_0007); empty where these are none."""
    found = [re.fullmatch(r"(.*?)(\d+)", task) for task in tasks]
    if len(tasks) < 2 or len({match and match[1] for match in found}) > 1 or None in found:
        return {}
    return {match[0]: int(match[2]) for match in found if match is not None}


def _episode(task: str, number: int, row: dict[str, Any]) -> EpisodeResult:
    return EpisodeResult(
        task=task,
        episode=number,
        state=number,
        start="",
        instruction="",
        success=bool(row["metrics"].get("success", False)),
        steps=int(row.get("steps") or 0),
        error=str(row.get("failure_reason") or ""),
    )
