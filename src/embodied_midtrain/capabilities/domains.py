"""The seven domains: what asks their questions, which kinds there are, and how even their answers are to be.

"Rethinking VLM Representation for VLA Initialization" (arXiv 2605.25802) names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from embodied_midtrain.capabilities import camera, egocentric, plan, scenes, temporal
from embodied_midtrain.coupled import affordance, baselines, goal, questions, spatial, trajectory
from embodied_midtrain.coupled.moment import Asked, Moment
from embodied_midtrain.sources.asking import Question
from embodied_midtrain.sources.registry.scenes_truth import Scene

LOCALISED = ("what-at", "where", "box", "meant", "grasp-point", "graspable", "path-end")
"""Grounding of a look: the thing that is named or meant, where it is acted on, and where the gripper goes."""


@dataclass(frozen=True)
class Domain:
    """What a domain is made of; a material that is None gives it nothing.

    Attributes:
        about: in a few words.
        scene: asks about a scene without a robot.
        look: asks about looks of an episode.
        kinds: of its questions.
        scene_kinds: those of `scene`.
        other: "views" of a scene, or the "actions" of episodes, where it is made of these.
    """

    about: str
    kinds: tuple[str, ...]
    scene: Callable[[Scene], Iterator[Question]] | None = None
    scene_kinds: tuple[str, ...] = ()
    look: Callable[[Moment], Iterator[Asked]] | None = None
    other: str = ""

    @property
    def materials(self) -> set[str]:
        """What it can be made of."""
        found = {"scenes": self.scene, "looks": self.look, self.other: self.other}
        return {name for name, there in found.items() if there}


def grounding(moment: Moment) -> Iterator[Asked]:
    """Questions of `LOCALISED`."""
    for family in (goal.goal, affordance.affordance, trajectory.trajectory):
        yield from (asked for asked in family(moment) if asked.kind in LOCALISED)


DOMAINS: dict[str, Domain] = {
    "spatial": Domain(
        "relations, orientation, distance",
        (*scenes.SPATIAL, *spatial.KINDS),
        scenes.spatial,
        scenes.SPATIAL,
        spatial.spatial,
    ),
    "grounding": Domain(
        "the thing referred to, where to act on it, where the gripper goes",
        (*scenes.GROUNDING, *LOCALISED),
        scenes.grounding,
        scenes.GROUNDING,
        grounding,
    ),
    "plan": Domain("sub-goals, preconditions, order", plan.KINDS, look=plan.plan),
    "camera": Domain("field of view, pose, change of view", camera.KINDS, other="views"),
    "egocentric": Domain("hand, held thing, reach, hand camera", egocentric.KINDS, look=egocentric.egocentric),
    "temporal": Domain("order, events, what happened, over several pictures", temporal.KINDS, look=temporal.temporal),
    "action": Domain("the next actions as text", ("action",), other="actions"),
}

MOST: dict[str, float] = {
    **questions.MOST,
    **dict.fromkeys(("side-choice", "side-check", "depth-choice", "depth-check", "orientation"), 0.55),
    **dict.fromkeys(("done", "held", "opening", "in-reach", "hand-sees"), 0.55),
    **dict.fromkeys(("first-of-two", "cause", "higher", "steeper", "nearer-camera"), 0.55),
    **dict.fromkeys(("nearest", "before", "moved", "grasped-in", "released-in", "moved-in", "motion"), 0.5),
}
"""As `coupled.questions.MOST`."""

CEILINGS: dict[str, float] = {
    **baselines.CEILINGS,
    **dict.fromkeys(MOST.keys() - questions.MOST.keys(), 0.65),
    **dict.fromkeys(("field-of-view", "tilt", "height", "change", "turn", "order", "gap"), 0.5),
    **dict.fromkeys(("point", "grasp", "referred", "free-space", "hand"), 0.5),
    # Which of two things is the taller can be told from their names, and what comes first from the instruction.
    **dict.fromkeys(("taller", "purpose", "earlier", "nearest", "happened"), 1.0),
}
"""As `coupled.baselines.CEILINGS`."""
