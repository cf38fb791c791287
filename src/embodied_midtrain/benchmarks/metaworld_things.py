"""What the things of Meta-World's scenes are called, and which parts of the model they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embodied_midtrain.simulation.truth import Gripper, Prop

WRIST_CAMERA = "gripperPOV"
"""Meta-World's own, on the hand: it sees the fingertips and what is below them."""
OPEN = 0.1
"""Distance between the pads of the open gripper, metres; what Meta-World itself divides by."""
FORWARD = (0.0, 1.0, 0.0)

_ROBOT, _ROOM = "base", ("world", "tablelink", "RetainingWall", "mocap")
_DRAWN = 3
"""Geom groups from here on are hidden collision shapes."""
_FIXED = frozenset(
    {"wall", "shelf", "basket_goal", "bin_start", "bin_goal", "goal_whole", "puck_goal", "coffee_machine"}
)
"""Things that a gripper cannot take."""

BODIES: dict[str, str] = {
    "RoundNut": "ring",
    "peg": "peg",
    "bsktball": "ball",
    "basket_goal": "basket",
    "bin_start": "bin",
    "bin_goal": "bin",
    "boxbody": "box",
    "boxbodytop": "lid",
    "box": "box",
    "button": "red button",
    "wall": "wall",
    "coffee_machine": "coffee machine",
    "cmbutton": "coffee machine button",
    "dial": "dial",
    "door": "door",
    "lock_link": "lock",
    "drawer": "cabinet",
    "drawer_link": "drawer",
    "faucetBase": "tap",
    "hammerbody": "hammer",
    "nail_link": "nail",
    "handle_link": "handle",
    "lever": "lever",
    "plug1": "peg",
    "puck_channel": "plate",
    "puck_goal": "goal",
    "soccer_ball": "football",
    "goal_whole": "goal",
    "stick": "stick",
    "object": "thermos",
    "shelf": "shelf",
    "window": "window",
}
"""By body; what hangs on it and has no name of its own is part of it."""

PIECES: dict[str, str] = {
    "bin-picking-v3": "green block",
    "coffee-button-v3": "mug",
    "coffee-pull-v3": "mug",
    "coffee-push-v3": "mug",
    "hand-insert-v3": "block",
    "pick-out-of-hole-v3": "puck",
    "push-back-v3": "block",
    "shelf-place-v3": "block",
    "sweep-into-v3": "block",
    "sweep-v3": "block",
}
"""What the body "obj" is; in other tasks a red cylinder."""

_COLOURS = {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue"}


def props_of(task: str, model: Any, names: Mapping[str, str] = {}) -> tuple[Prop, ...]:
    """The things of a scene.

    Args:
        names: what bodies are called that Meta-World's own scenes do not have.
    """
    called = {**BODIES, "obj": PIECES.get(task, "red cylinder"), **names}
    parts: dict[int, tuple[list[int], list[int]]] = {}
    for body in range(1, model.nbody):
        root = model.body(model.body_rootid[body]).name
        owner = _owner(model, body, called)
        if root not in (_ROBOT, *_ROOM) and owner is not None:
            bodies, geoms = parts.setdefault(owner, ([], []))
            bodies.append(body)
            geoms += _drawn(model, [body])
    props = []
    for owner, (bodies, geoms) in parts.items():
        if geoms:
            name = model.body(owner).name
            grasped = False if name in _FIXED else True if name == "obj" else None
            props.append(Prop(called[name], tuple(geoms), (), tuple(bodies), grasped))
    return (*props, *_goal(model))


def _owner(model: Any, body: int, called: Mapping[str, str]) -> int | None:
    """The nearest body with a name in words that this one is or hangs on."""
    while body:
        if model.body(body).name in called:
            return body
        body = int(model.body_parentid[body])
    return None


def _drawn(model: Any, bodies: list[int]) -> list[int]:
    return [
        geom
        for geom in range(model.ngeom)
        if model.geom_bodyid[geom] in bodies and model.geom_group[geom] < _DRAWN and model.geom_rgba[geom, 3] > 0
    ]


def _goal(model: Any) -> list[Prop]:
    """The coloured ball that marks where to go."""
    found = [site for site in range(model.nsite) if model.site(site).name == "goal" and model.site_rgba[site, 3] > 0]
    colours = [tuple(int(part > 0.5) for part in model.site_rgba[site, :3]) for site in found]
    return [
        Prop(f"{_COLOURS[colour]} ball", (), (site,), (), grasped=False)
        for site, colour in zip(found, colours, strict=True)
        if colour in _COLOURS
    ]


def gripper_of(model: Any) -> Gripper:
    """Two claws, each with a pad."""
    claws = [[model.body(f"{side}{part}").id for part in ("claw", "pad")] for side in ("right", "left")]
    fingers = tuple(tuple(_drawn(model, claw)) for claw in claws)
    robot = [body for body in range(model.nbody) if model.body(model.body_rootid[body]).name == _ROBOT]
    arm = set(_drawn(model, robot)) - {geom for finger in fingers for geom in finger}
    tips = tuple(model.site(f"{side}EndEffector").id for side in ("right", "left"))
    return Gripper(fingers, tuple(map(tuple, claws)), tips, tuple(sorted(arm)))
