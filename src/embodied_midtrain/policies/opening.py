"""Opening a policy, to act or to go on training from."""

from __future__ import annotations

from pathlib import Path

import torch

from embodied_midtrain.artifacts import MANIFEST, Artifact, StageError
from embodied_midtrain.backbones.precision import lighten
from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.policies.policy import SETTINGS, Policy, load_policy
from embodied_midtrain.robots.actions import check_specs


def open_policy(folder: Path | str) -> Policy:
    """The policy in a folder of `emt finetune` (or in its `policy` subfolder), as it was saved.

    Raises:
        StageError: no finished policy there, or a damaged one.
    """
    folder = Path(folder)
    if (folder / MANIFEST).is_file():
        folder = Artifact.open(folder, "finetune").file("policy")
    if not (folder / SETTINGS).is_file():
        raise StageError(f"{folder} is no policy: it has no {SETTINGS}. Give the output folder of 'emt finetune'.")
    return load_policy(folder)


def load_actor(folder: Path | str, spec: ActionSpec | None = None) -> Policy:
    """`open_policy`, ready to `act` and no more: weights are in the precision that it computes in.

    Args:
        spec: what the actions are going to be used as; it must be what the policy was trained on.

    Raises:
        StageError: as `open_policy`, and where the policy's action spec is another.
    """
    policy = open_policy(folder)
    if spec is not None:
        check_specs(policy.spec, spec, wanted_by=f"the policy in {folder}", given_by="what it is to act on")
    if policy.precision is torch.bfloat16:
        for model in (policy.backbone.model, policy.net):
            lighten(model, torch.bfloat16)
    return policy
