"""All kinds of questions, by category, and what share each is to have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from embodied_midtrain.coupled import affordance, goal, planning, spatial, trajectory
from embodied_midtrain.coupled.moment import Asked, Moment

Family = Callable[[Moment], Iterator[Asked]]

FAMILIES: dict[str, tuple[Family, tuple[str, ...]]] = {
    "spatial": (spatial.spatial, spatial.KINDS),
    "goal": (goal.goal, goal.KINDS),
    "affordance": (affordance.affordance, affordance.KINDS),
    "planning": (planning.planning, planning.KINDS),
    "trajectory": (trajectory.trajectory, trajectory.KINDS),
}
"""By category: what asks, and which kinds it asks."""

WEIGHTS = {"affordance": 0.22, "goal": 0.14, "spatial": 0.24, "planning": 0.14, "trajectory": 0.26}
"""Category sampling of "Two Bridges, One Pathway" (arXiv 2606.08520)."""

CATEGORY = {kind: name for name, (_, kinds) in FAMILIES.items() for kind in kinds}

MOST: dict[str, float] = {
    **dict.fromkeys(("nearer", "side", "same-thing", "visible", "holding", "graspable"), 0.55),
    **dict.fromkeys(("direction", "distance", "gap", "what-at", "phase", "next"), 0.5),
}
"""The largest share that an answer may have among the questions of a kind about the same subject."""


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """What part of all questions each kind is to be: a category's kinds are equal."""
    return {kind: weights.get(name, 0.0) / len(kinds) for name, (_, kinds) in FAMILIES.items() for kind in kinds}


def questions(moment: Moment, weights: Mapping[str, float]) -> Iterator[Asked]:
    """Everything that can be asked about a look, of the categories with a weight."""
    for name, (family, _) in FAMILIES.items():
        if weights.get(name, 0.0) > 0:
            yield from family(moment)
