"""Going on from another policy: what robot-data pretraining made, as where the target task's training begins."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.episodes import Robots
from embodied_midtrain.policies.net import Net
from embodied_midtrain.policies.policy import Policy
from embodied_midtrain.policies.shape import PolicyShape
from embodied_midtrain.robots.actions import check_specs

NOT_OF_THE_NET = ("executed", "camera")
"""Fields of a shape in which two policies may differ and still have the same head."""


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """What is taken over from a policy to start from, beside its backbone."""

    start_head: Literal["kept", "renewed"] = "kept"
    """Whether its head goes on learning, which needs the same head and the same action spec, or a new one begins."""
    start_statistics: Literal["new", "kept"] = "new"
    """Action ranges: of the new demonstrations, or those that the policy has (its own units then stay)."""


def check_start(start: Policy, config: StartConfig, demos: Robots) -> None:
    """Refuse what of `start` cannot go on with these demonstrations.

    Raises:
        StageError: where their actions mean something else than the kept head's or the kept statistics'.
    """
    if config.start_head == "kept" or config.start_statistics == "kept":
        check_specs(start.spec, demos.spec, wanted_by="the policy to start from", given_by=demos.name)


def take_over(start: Policy, shape: PolicyShape, net: Net) -> None:
    """Put the trained parts of `start` into a new net.

    Raises:
        StageError: where it is another head; the message names what differs.
    """
    mine, theirs = asdict(shape), asdict(start.shape)
    # Full and LoRA train the same net; frozen mode another.
    mine["mode"], theirs["mode"] = (mode if mode == "frozen" else "" for mode in (shape.mode, start.shape.mode))
    names = [name for name in mine if name not in NOT_OF_THE_NET and mine[name] != theirs[name]]
    if names:
        lines = "; ".join(f"{name}: {getattr(start.shape, name)} there, {getattr(shape, name)} now" for name in names)
        raise StageError(
            f"the policy to start from has another head ({lines}). Give the same settings, or --start-head renewed."
        )
    net.load_state_dict(start.net.state_dict())
