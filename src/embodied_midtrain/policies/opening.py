"""Opening a policy for rollouts."""

from __future__ import annotations

from pathlib import Path

from embodied_midtrain.artifacts import MANIFEST, Artifact, StageError
from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.policies.policy import SETTINGS, Policy, load_policy
from embodied_midtrain.robots.actions import check_specs


def load_actor(folder: Path | str, spec: ActionSpec | None = None) -> Policy:
    """The policy in a folder of `emt finetune` (or in its `policy` subfolder), ready to `act`.

    Args:
        spec: what the actions are going to be used as; it must be what the policy was trained on.

    Raises:
        StageError: no finished policy there, a damaged one, or one whose action spec is another.
    """
    folder = Path(folder)
    if (folder / MANIFEST).is_file():
        folder = Artifact.open(folder, "finetune").file("policy")
    if not (folder / SETTINGS).is_file():
        raise StageError(f"{folder} is no policy: it has no {SETTINGS}. Give the output folder of 'emt finetune'.")
    policy = load_policy(folder)
    if spec is not None:
        check_specs(policy.spec, spec, wanted_by=f"the policy in {folder}", given_by="what it is to act on")
    return policy
