"""Public benchmarks by lmms-eval: its command lines, and its results as rows of our table.

lmms-eval wants packages that this project does without (torchvision among them), so that it runs as a program of its
own, from whatever environment has it.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from embodied_midtrain.artifacts import StageError, read_json
from embodied_midtrain.intervals import wilson

Task = Literal["pope", "blink", "visulogic", "3dsrbench", "spatialeval"]
METRICS: dict[str, str] = {
    "pope": "pope_accuracy",
    "blink": "blink_acc",
    "visulogic": "visulogic_acc",
    "3dsrbench": "vanilla_accuracy",
    "spatialeval": "spatialeval_acc",
}
"""What lmms-eval 0.7.3 calls the share of right answers; spatialeval is a task of ours, for it has none."""
assert set(METRICS) == set(get_args(Task))
OWN_TASKS = Path(__file__).parent / "lmms_tasks"
KINDS = {"internvl": "internvl_hf", "qwen3_vl": "qwen3_vl", "qwen2_5_vl": "qwen2_5_vl"}
"""lmms-eval's own classes by transformers' model_type; its generic one takes what has a chat template."""


@dataclass(frozen=True)
class Call:
    """lmms-eval on one model."""

    model: str
    kind: str
    tasks: tuple[Task, ...]
    out: Path
    arguments: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        return [
            sys.executable,
            *("-m", "lmms_eval"),
            *("--model", self.kind),
            *("--model_args", f"pretrained={self.model}"),
            *("--tasks", ",".join(self.tasks)),
            *("--include_path", str(OWN_TASKS)),
            *("--output_path", str(self.out)),
            *(word for argument in self.arguments for word in shlex.split(argument)),
        ]

    def shown(self) -> str:
        return shlex.join(["python", *self.words[1:]])


def kind_of(model: str) -> str:
    """lmms-eval's name for the kind of model: of a folder by its config, of a hub name the generic one.

    Raises:
        StageError: for the compact backbone, which only this package knows.
    """
    config = Path(model) / "config.json"
    kind = str(read_json(config).get("model_type", "")) if config.is_file() else ""
    if model == "compact" or kind == "embodied_compact":
        raise StageError(
            "lmms-eval cannot load the compact backbone, which only this package knows; leave --lmms-eval out, or give "
            "a backbone of transformers' own."
        )
    by_name = next((own for own in KINDS.values() if own.replace("_hf", "").replace("_", "") in _plain(model)), "")
    return KINDS.get(kind) or by_name or "huggingface"


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(".", "")


def check_installed() -> None:
    """Raise StageError where this environment has no lmms-eval."""
    if importlib.util.find_spec("lmms_eval") is None:
        raise StageError(
            "lmms-eval is not installed here: pip install lmms-eval (it brings torchvision), or give --dry-run and run "
            "the commands that are printed where it is."
        )


def run_all(calls: Sequence[Call], labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By benchmark and model: the share of right answers, with Wilson's interval. Finished runs are not run again.

    Raises:
        StageError: where lmms-eval fails or leaves no result.
    """
    found: dict[str, dict[str, Any]] = {}
    for call, label in zip(calls, labels, strict=True):
        if not results_of(call.out):
            status = subprocess.run(call.words, check=False).returncode
            if status or not results_of(call.out):
                raise StageError(f"lmms-eval ended with status {status} and no result in {call.out}: {call.shown()}")
        for task, share in shares(results_of(call.out), call.tasks).items():
            found.setdefault(task, {})[label] = share
    return found


def results_of(folder: Path) -> dict[str, Any]:
    """The newest result in a folder of --output_path; empty where there is none.

    Raises:
        StageError: where it cannot be read.
    """
    files = sorted(folder.rglob("*results.json"), key=lambda path: (path.stat().st_mtime, path.name))
    if not files:
        return {}
    try:
        values: dict[str, Any] = json.loads(files[-1].read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StageError(
            f"{files[-1]} is no readable result ({error}); remove it and give the command again"
        ) from error
    return values


def shares(results: dict[str, Any], tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Share, questions and interval of each benchmark.

    Raises:
        StageError: where a benchmark or its metric is missing.
    """
    found: dict[str, dict[str, Any]] = {}
    for task in tasks:
        own = results.get("results", {}).get(task, {})
        values = [own[name] for name in (f"{METRICS[task]},none", METRICS[task]) if name in own]
        if not values or not isinstance(values[0], int | float):
            raise StageError(
                f"lmms-eval's result has no {METRICS[task]} of {task} (it has: {', '.join(own) or 'nothing'}); its "
                "version may name it otherwise."
            )
        share = float(values[0])
        if not 0 <= share <= 1:
            raise StageError(f"lmms-eval's {METRICS[task]} of {task} is {share}, which is no share")
        counts = results.get("n-samples", {})
        members = [task] if task in counts else [name for name in counts if name.startswith(f"{task}_")]
        total = sum(int(counts[name]["effective"]) for name in members)
        found[task] = {"share": round(share, 4), "questions": total}
        if total:
            low, high = wilson(round(share * total), total)
            found[task] |= {"low": round(low, 4), "high": round(high, 4)}
    return found
