"""A policy's model card: what its actions mean, how it was trained, how others read its folder."""

from __future__ import annotations

from typing import Any

import yaml

from embodied_midtrain.artifacts import Artifact, read_json
from embodied_midtrain.policies.policy import SETTINGS
from embodied_midtrain.release.card import Told, settings, versions

LAYOUT = """## Layout

- `policy.json`: shape of the head, preprocessing (side in pixels, prompt), action spec, range of the actions.
- `head.safetensors`: the trained parts beside the backbone.
- `fast.json`: the action tokens, where the language model says any.
- `backbone/`: the backbone and its processor as transformers writes them.

`docs/export.md` of embodied-midtrain says what each field means and has a reader that needs neither it nor a
simulator.
"""


def write_policy_card(finetuned: Artifact, told: Told, *, title: str) -> str:
    """The card in Markdown, with the hub's front matter."""
    saved: dict[str, Any] = read_json(finetuned.file(f"policy/{SETTINGS}"))
    front: dict[str, Any] = {
        "library_name": "embodied-midtrain",
        "pipeline_tag": "robotics",
        "tags": ["robotics", "vision-language-action", "embodied-midtrain"],
    }
    if told.licence:
        front["license"] = told.licence
    if told.base and told.base != "compact":
        front["base_model"] = told.base
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
            f"# {title}\n",
            f"A robot policy: one camera frame and an instruction in, {saved['shape']['chunk']} actions out, of "
            f"which {saved['shape']['executed']} are to be executed before the next look. Its backbone is "
            f"`{saved['backbone']['name']}`, its mode `{saved['shape']['mode']}`.\n",
            _actions(saved["spec"]),
            _training(finetuned),
            *_rollouts(told),
            LAYOUT,
            f"{versions(finetuned)}\n",
        ]
    )


def _actions(spec: dict[str, Any]) -> str:
    closed = "" if spec["gripper"] is None else f", {spec['gripper_closed']:+d} closes the gripper"
    lines = [
        "## Actions",
        "",
        f"{spec['kind']}, frame {spec['frame']}, rotation {spec['rotation']}, {spec['rate']:g} a second{closed}.",
        "",
        "| dimension | low | high |",
        "|---|---:|---:|",
    ]
    lines += [
        f"| {n} | {_bound(a)} | {_bound(b)} |" for n, a, b in zip(spec["names"], spec["low"], spec["high"], strict=True)
    ]
    return "\n".join([*lines, "", "Do not run it on a robot whose controller takes actions otherwise.", ""])


def _bound(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _training(finetuned: Artifact) -> str:
    seen = ", ".join(f"{name} {value}" for name, value in finetuned.counts.items() if isinstance(value, int))
    return "\n".join([*settings(finetuned), "", f"Counts: {seen}.", ""])


def _rollouts(told: Told) -> list[str]:
    if not told.rollouts:
        return []
    lines = ["## Closed loop", "", "| task | success | 95 % interval | episodes |", "|---|---:|---:|---:|"]
    for artifact in told.rollouts:
        results = read_json(artifact.file("results.json"))
        for task, row in [*results["tasks"].items(), ("all", results["all"])]:
            span = f"{row['low']:.1%} to {row['high']:.1%}"
            lines.append(f"| {task} | {row['success']:.1%} | {span} | {row['episodes']} |")
    return ["\n".join([*lines, ""])]
