"""`emt drift along`: how far a policy's backbone was from where it began, at each milestone of its training.

What "Two Bridges, One Pathway" (arXiv 2606.08520) shows of action-only training and of co-training: CKA to the model of
the first stage while the policy learns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from embodied_midtrain.artifacts import Artifact, Skips, StageError, open_stage, read_json, write_json
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.opening import COMPACT, load_backbone
from embodied_midtrain.diagnostics.drift import FILE as DRIFT
from embodied_midtrain.diagnostics.drift import KINDS, DriftConfig, drift
from embodied_midtrain.episodes import Robots
from embodied_midtrain.robots.opening import open_robots

FILE = "course.json"


def course(
    out: Path,
    config: DriftConfig,
    *,
    base: Backbone,
    trained: Artifact,
    robots: Robots,
    overwrite: bool = False,
) -> Artifact:
    """`drift` of every milestone and of the end.

    The artifact holds `course.json`: the steps, and for each of them the weights' relative distance and CKA by layer on
    the robot's frames; and each milestone's own 'emt drift' below `at/`.

    Args:
        base: where the policy's backbone began.
        trained: an 'emt finetune' artifact.

    Raises:
        StageError: where it kept no milestones, or has another architecture than `base`.
    """
    settings = trained.manifest["config"]
    steps: dict[int, Path] = {step: trained.file(f"milestones/{step}") for step in settings["milestones"]}
    if not steps:
        raise StageError(f"{trained.path} kept no milestones: train it with --milestones, such as --milestones 100 200")
    steps = dict(sorted(steps.items())) | {settings["steps"]: trained.file("policy")}
    inputs: dict[str, Artifact | str] = {
        "base": base.fingerprint(),
        "trained": trained,
        "robots": robots.fingerprint(),
    }
    with open_stage(out, "course", config, inputs, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        found: list[dict[str, Any]] = []
        for step, policy in steps.items():
            model = load_backbone(str(policy / "backbone"), dtype=torch.float32)
            facts = read_json(drift(run.file(f"at/{step}"), config, base=base, model=model, robots=robots).file(DRIFT))
            found.append(
                {"step": step, "weights": facts["weights"]["parts"]["all"]["relative"], **facts["cka"]["robot"]}
            )
        write_json(run.file(FILE), {"base": base.name, "layers": facts["layers"], "course": found})
        return run.finish({"milestones": len(found)})


def along_command(
    out: Path,
    trained: Path,
    robots: Path,
    base: str = COMPACT,
    config: DriftConfig = DriftConfig(),
    camera: str | None = None,
    overwrite: bool = False,
) -> None:
    """Say how far a policy's backbone was from where it began, at each milestone of its training.

    Examples:
        emt drift along --base runs/bridged/model --trained runs/mine/policy --robots runs/demos --out runs/mine/course

    Args:
        out: folder for the result.
        trained: an 'emt finetune' folder that kept --milestones.
        robots: robot data whose frames both read.
        base: the backbone that its training began with.
        config: what they look at.
        camera: which pictures of the robot data, where they hold several.
        overwrite: replace a result that was made from other inputs or settings.
    """
    artifact = course(
        out,
        config,
        base=load_backbone(base, dtype=torch.float32),
        trained=Artifact.open(trained, "finetune"),
        robots=open_robots(robots, Skips(), camera=camera),
        overwrite=overwrite,
    )
    print_course(read_json(artifact.file(FILE)))


def print_course(facts: dict[str, Any]) -> None:
    """A line for each milestone: the weights' distance, and CKA of the highest layer that was looked at."""
    print(f"linear CKA to {facts['base']} on robot frames, layer {facts['layers'][-1]} (1: unchanged)")
    print(f"{'step':<8}{'weights':>10}" + "".join(f"{kind:>10}" for kind in KINDS))
    for at in facts["course"]:
        values = "".join(f"{at[kind][-1]:>10.4f}" for kind in KINDS)
        print(f"{at['step']:<8}{at['weights']:>10.5f}{values}")
