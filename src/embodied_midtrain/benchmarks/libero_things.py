"""What the things of LIBERO's scenes are called, and which parts of the model they are."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from embodied_midtrain.benchmarks.libero_world import CAMERA, World
from embodied_midtrain.simulation.camera import FreeCamera
from embodied_midtrain.simulation.truth import AGENT, WRIST, Gripper, Prop, Truth
from embodied_midtrain.sources.registry.scenes_catalogue import CATALOGUE

WRIST_CAMERA = "robot0_eye_in_hand"
OPEN = 0.08
"""Distance between the fingers of the open gripper, metres."""
FORWARD = (1.0, 0.0, 0.0)
_ROBOT = "robot0_base"
_DRAWN = 1
"""The geom group of what is seen; others are collision shapes."""


def truth_of(world: World, size: int) -> Truth:
    """A live view of the episode whose turn it is."""
    views: dict[str, FreeCamera | str] = {AGENT: CAMERA, WRIST: WRIST_CAMERA}
    props, gripper = props_of(world), gripper_of(world)
    return Truth(world.model, world.data, world.renderer(size), views, props, gripper, forward=FORWARD, opening=OPEN)


def props_of(world: World) -> tuple[Prop, ...]:
    """The scene's objects and fixtures, by the names of the catalogue; a cabinet is one thing with its drawers."""
    model, fixtures, props = world.model, world.env.fixtures_dict, []
    for item in (*world.env.objects_dict, *fixtures):
        entry = CATALOGUE.get(item.rsplit("_", 1)[0])
        root = model.body(world.env.get_object(item).root_body).id
        bodies = [body for body in range(model.nbody) if model.body_rootid[body] == root]
        if entry is not None and (geoms := _drawn(model, bodies)):
            grasped = entry.grip is not None and item not in fixtures
            props.append(Prop(entry.name, geoms, (), tuple(bodies), grasped))
    return tuple(props)


def _drawn(model: Any, bodies: Collection[int]) -> tuple[int, ...]:
    return tuple(g for g in range(model.ngeom) if model.geom_bodyid[g] in bodies and model.geom_group[g] == _DRAWN)


def gripper_of(world: World) -> Gripper:
    """The Panda's two fingers, each with its tip."""
    model = world.model
    # A tip hangs on its finger.
    pads = [
        tuple(model.body(f"gripper0_{part}").id for part in (f"finger_joint{n}_tip", f"{side}finger"))
        for n, side in ((1, "left"), (2, "right"))
    ]
    fingers = tuple(_drawn(model, finger) for finger in pads)
    robot = [body for body in range(model.nbody) if model.body(model.body_rootid[body]).name == _ROBOT]
    arm = set(_drawn(model, robot)) - {geom for finger in fingers for geom in finger}
    tip = model.site(world.robot.gripper.important_sites["grip_site"]).id
    return Gripper(fingers, tuple(pads), (tip,), tuple(sorted(arm)))
