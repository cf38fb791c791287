"""Answers of trajectory-coupled questions, computed again from MuJoCo's own state and pictures: see check_coupled."""

from __future__ import annotations

from typing import Any

import numpy as np

FORWARD = {"metaworld": ((0, 1, 0), (-1, 0, 0)), "libero": ((1, 0, 0), (0, 1, 0))}
"""What the robot calls forward and left."""
SLACK = 1.5e-3
"""Coordinates are rounded to 3 decimals."""


def found_again(row: dict[str, Any], own: Any) -> str | None:
    """What is wrong with an answer; None where it is found again."""
    fact = own.facts[row["look"]]
    kind, *about = row["about"]
    check = globals()[f"_{kind.replace('-', '_')}"]
    return check(row, own, fact, *about)


def _equal(found: Any, row: dict[str, Any]) -> str | None:
    return None if found == row["answer"] else f"found {found!r}"


def _direction(row: Any, own: Any, fact: Any, thing: int) -> str | None:
    way = own.centre(fact, thing) - own.places[row["step"]]
    ahead, left = FORWARD[own.world.split("_")[0].split("/")[0]]
    said = {"forward": ahead, "left": left, "up": (0, 0, 1)}
    opposite = {"forward": "back", "left": "right", "up": "down"}
    parts = {name: float(np.dot(way, axis)) for name, axis in said.items()}
    most = max(parts, key=lambda name: abs(parts[name]))
    return _equal(most if parts[most] > 0 else opposite[most], row)


def _steps_of_five(metres: float) -> str:
    return f"{int((metres * 100 + 2.5) // 5) * 5} cm"


def _distance(row: Any, own: Any, fact: Any, thing: int) -> str | None:
    return _equal(_steps_of_five(float(np.linalg.norm(own.centre(fact, thing) - own.places[row["step"]]))), row)


def _gap(row: Any, own: Any, fact: Any, a: int, b: int) -> str | None:
    return _equal(_steps_of_five(float(np.linalg.norm(own.centre(fact, a) - own.centre(fact, b)))), row)


def _nearer(row: Any, own: Any, fact: Any, a: int, b: int) -> str | None:
    place = own.places[row["step"]]
    return _equal(own.props[min((a, b), key=lambda n: np.sum((own.centre(fact, n) - place) ** 2))].name, row)


def _side(row: Any, own: Any, fact: Any, a: int, b: int) -> str | None:
    columns = [np.median(np.nonzero(own.mask(fact, row["views"][0], n))[1]) for n in (a, b)]
    return _equal("left" if columns[0] < columns[1] else "right", row)


def _at(own: Any, fact: Any, view: str, point: Any) -> tuple[int, int]:
    height, width = fact.shown[view].shape[:2]
    return int(point[1] * height), int(point[0] * width)


def _middle(own: Any, fact: Any, view: str, thing: int, point: Any) -> str | None:
    """Whether a point is on a thing and, to a pixel, the one of its mask that is nearest to the mask's middle."""
    mask = own.mask(fact, view, thing)
    if not mask[_at(own, fact, view, point)]:
        return f"the point is not on {own.props[thing].name}"
    where = np.argwhere(mask)[:, ::-1] + 0.5
    off = np.linalg.norm(where - where.mean(0), axis=1)
    mine = np.linalg.norm(np.array(point) * mask.shape[::-1] - where.mean(0))
    return None if mine <= off.min() + 0.5 else f"the point is {mine:.1f} pixels from the middle"


def _cross_view(row: Any, own: Any, fact: Any, thing: int) -> str | None:
    first, second = row["views"]
    return _middle(own, fact, first, thing, row["pointed"][0]) or _middle(own, fact, second, thing, row["shown"][0])


def _same_thing(row: Any, own: Any, fact: Any, a: int, b: int) -> str | None:
    on = [
        {n for n in range(len(own.props)) if own.mask(fact, view, n)[_at(own, fact, view, point)]}
        for view, point in zip(row["views"], row["pointed"], strict=True)
    ]
    return _equal("yes" if on[0] == on[1] else "no", row) if all(on) else "a point is on nothing"


def _where(row: Any, own: Any, fact: Any, thing: int) -> str | None:
    return _middle(own, fact, row["views"][0], thing, row["shown"][0])


def _meant(row: Any, own: Any, fact: Any, thing: int) -> str | None:
    held = [n for things in own.holding for n in sorted(things)]
    if held and held[0] != thing:
        return f"what is held first is {own.props[held[0]].name}"
    return _middle(own, fact, row["views"][0], thing, row["shown"][0])


def _bounds(own: Any, fact: Any, view: str, thing: int) -> np.ndarray:
    mask = own.mask(fact, view, thing)
    rows, columns = mask.any(1), mask.any(0)
    edges = (columns.argmax(), rows.argmax(), len(columns) - columns[::-1].argmax(), len(rows) - rows[::-1].argmax())
    return np.array(edges) / (mask.shape[::-1] * 2)


def _box(row: Any, own: Any, fact: Any, thing: int) -> str | None:
    edges = _bounds(own, fact, row["views"][0], thing)
    return None if np.abs(edges - row["shown"][0]).max() < SLACK else f"found {edges.round(3)}"


def _what_at(row: Any, own: Any, fact: Any, thing: int) -> str | None:
    view = row["views"][0]
    number, kind = fact.shown[view][_at(own, fact, view, row["pointed"][0])].tolist()
    geom, site = own.nobj
    for prop in own.props:
        if (kind == geom and number in prop.geoms) or (kind == site and number in prop.sites):
            return _equal(prop.name, row)
    fingers = [g for finger in own.gripper.fingers for g in finger]
    if (kind == geom and number in fingers) or (kind == site and number in own.gripper.tips):
        return _equal("robot gripper", row)
    return _equal("robot arm" if kind == geom and number in own.gripper.arm else "none of the objects", row)


def _visible(row: Any, own: Any, fact: Any, thing: int) -> str | None:
    return _equal("yes" if own.mask(fact, row["views"][0], thing).any() else "no", row)


def _holding(row: Any, own: Any, fact: Any, held: int) -> str | None:
    return _equal("yes" if own.holding[row["step"]] else "no", row)


def _describe(row: Any, own: Any, fact: Any, held: int, *things: int) -> str | None:
    names = [own.props[n].name for n in things]
    hidden = [own.props[n].name for n in things if not own.mask(fact, row["views"][0], n).any()]
    if hidden or any(name not in row["answer"] for name in names):
        return f"not in the picture: {hidden}"
    holds = sorted(own.holding[row["step"]])
    return None if (f"holds the {own.props[holds[0]].name}" if holds else "holds nothing") in row["answer"] else "held"


def _near(found: Any, said: Any) -> str | None:
    return None if np.abs(np.asarray(found) - said).max() < SLACK else f"found {np.round(found, 3).tolist()}"


def _grasp_point(row: Any, own: Any, fact: Any, thing: int, step: int) -> str | None:
    if thing not in own.holding[min(step + 1, len(own.holding) - 1)] | own.holding[step]:
        return "it is not held then"
    return _near(fact.camera[row["views"][0]](own.places[step]), row["shown"][0])


def _graspable(row: Any, own: Any, fact: Any, thing: int) -> str | None:
    view, box = row["views"][0], row["pointed"][0]
    if thing >= 0:
        edges = _bounds(own, fact, view, thing)
        if np.abs(edges - box).max() >= SLACK:
            return "the region is not the thing's"
        taken = any(thing in things for things in own.holding)
        return _equal("yes" if taken or own.free(thing) else "no", row)
    (top, left), (bottom, right) = _at(own, fact, view, box[:2]), _at(own, fact, view, box[2:])
    inside = [own.mask(fact, view, n)[top + 1 : bottom, left + 1 : right].any() for n in range(len(own.props))]
    return "there is a thing in it" if any(inside) else _equal("no", row)


def _held_when(own: Any, step: int) -> tuple[bool, bool, bool]:
    """Whether something is held before, at and after a step."""
    held = [bool(things) for things in own.holding]
    return any(held[:step]), held[step], any(held[step + 1 :])


def _phase(row: Any, own: Any, fact: Any, number: int) -> str | None:
    before, now, after = _held_when(own, row["step"])
    fits = {
        "approaching": not now,
        "grasping": after,
        "carrying": now or (before and after),
        "releasing": before,
        "retreating": not now,
        "holding still": True,
        "moving something by contact": True,
    }
    return None if fits[row["answer"]] else f"held before {before}, now {now}, after {after}"


def _next(row: Any, own: Any, fact: Any, number: int) -> str | None:
    before, now, after = _held_when(own, row["step"])
    fits = {
        "close the gripper": after and not now,
        "carry": now or after,
        "open the gripper": now or before,
        "move the gripper": not after or now,
        "hold still": True,
        "move": True,
    }
    verb = next(start for start in fits if row["answer"].startswith(start))
    return None if fits[verb] else f"held before {before}, now {now}, after {after}"


def _plan(row: Any, own: Any, fact: Any, number: int) -> str | None:
    _, now, after = _held_when(own, row["step"])
    lines = row["answer"].split("; ")
    if [line.split(".")[0] for line in lines] != [str(n + 1) for n in range(len(lines))]:
        return "the lines are not numbered through"
    if any("close the gripper" in line for line in lines) and not after:
        return "nothing is taken any more"
    return "something is still carried" if not any("carry" in line for line in lines) and now and after else None


def _path(row: Any, own: Any, fact: Any, stop: int) -> str | None:
    steps = list(range(row["step"], stop))
    wanted = min(10, len(steps))
    chosen = sorted({round((len(steps) - 1) * n / max(wanted - 1, 1)) for n in range(wanted)})
    if len(chosen) != len(row["shown"]):
        return f"{len(chosen)} points"
    project = fact.camera[row["views"][0]]
    return _near([project(own.places[steps[n]]) for n in chosen], row["shown"])


def _path_end(row: Any, own: Any, fact: Any, stop: int) -> str | None:
    return _near(fact.camera[row["views"][0]](own.places[stop - 1]), row["shown"][0])
