"""Answers a scene's questions a second time, from their wording, sight rays and the model's own bounding boxes.

Shares with the generator only the scene's list of names; `wrong` says where an answer does not hold.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from scipy.spatial import ConvexHull

from embodied_midtrain.samples import REGION_MARK, Region
from embodied_midtrain.sources.asking import Question
from embodied_midtrain.sources.registry.scenes_truth import Scene
from tests.sources.registry.rays import Rays

STEP = 3
CONTAINERS = ("bowl", "mug", "basket", "ramekin", "tray", "caddy")
HANDLES = ("mug", "frying pan", "moka pot")
SINGULAR = {"boxes": "box"}


class Witness:
    """What rays and the model tell of one scene; `geoms` by body, `table` the body that things stand on."""

    def __init__(self, scene: Scene, rays: Rays, geoms: dict[str, list[int]], table: str) -> None:
        self.scene, self.rays, self.model, self.data = scene, rays, rays.model, rays.data
        self.geoms, self.table = geoms, table
        self.things = {t.body: t.name for t in (*scene.things, *([scene.gripper] if scene.gripper else []))}
        self.names = [t.name for t in scene.things]
        self.pixels, self.hit, self.places = rays.hits(STEP)

    def body(self, name: str) -> str:
        (body,) = (body for body, called in self.things.items() if called == name)
        return body

    def on(self, name: str) -> np.ndarray:
        """Which rays meet the thing."""
        return np.isin(self.hit, self.geoms[self.body(name)])

    def at(self, region: Region) -> tuple[str, np.ndarray]:
        """The body at a point and where it is met."""
        geom, place = self.rays.hit(region.values[0] * self.rays.side, region.values[1] * self.rays.side)
        return next((body for body, ids in self.geoms.items() if geom in ids), ""), place

    def corners(self, name: str) -> np.ndarray:
        """The corners of MuJoCo's own boxes around the thing's parts, world frame. [n, 3]"""
        signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
        parts = []
        for geom in self.geoms[self.body(name)]:
            box = self.model.geom_aabb[geom]
            if self.model.geom_type[geom] in (2, 5, 6):  # Sizes of solids change after the model is compiled.
                size = self.model.geom_size[geom]
                half = {2: size[[0, 0, 0]], 5: size[[0, 0, 1]], 6: size}[int(self.model.geom_type[geom])]
                box = np.array([0, 0, 0, *half])
            local = box[:3] + signs * box[3:]
            parts.append(local @ self.data.geom_xmat[geom].reshape(3, 3).T + self.data.geom_xpos[geom])
        return np.concatenate(parts)

    def middle(self, name: str) -> np.ndarray:
        corners = self.corners(name)
        return (corners.min(0) + corners.max(0)) / 2

    def narrowest(self, name: str) -> float:
        """The least width from above, by the edges of the outline."""
        points = next(t.points for t in self.scene.things if t.name == name)[:, :2]
        outline = points[ConvexHull(points).vertices]
        edges = np.roll(outline, -1, 0) - outline
        normals = np.column_stack([-edges[:, 1], edges[:, 0]]) / np.linalg.norm(edges, axis=1, keepdims=True)
        across = outline @ normals.T
        return float((across.max(0) - across.min(0)).min())

    def visible(self) -> list[str]:
        return [name for name in self.names if np.isin(self.hit, self._all(name)).any()]

    def _all(self, name: str) -> list[int]:
        return [g for body, called in self.things.items() if called == name for g in self.geoms[body]]


def wrong(asked: Question, phrasing: str, witness: Witness) -> str:
    """Empty where the answer holds; else what is the matter."""
    return _CHECKS[asked.kind](asked, phrasing, witness) or ""


def spoilt(asked: Question, scene: Scene) -> Question | None:
    """The question with a wrong answer, None where there is nothing to take one from; `wrong` must notice."""
    if asked.shown:
        elsewhere = (0.004, 0.004) if asked.shown[0].kind == "point" else (0.0, 0.0, 0.1, 0.1)
        return replace(asked, shown=(Region(asked.shown[0].kind, elsewhere),))
    swaps = {"yes": "no", "no": "yes", "left": "right", "right": "left", "in front": "behind", "behind": "in front"}
    if asked.answer in swaps:
        return replace(asked, answer=swaps[asked.answer])
    if asked.kind == "count":
        return replace(asked, answer=str(int(asked.answer) + 1))
    # A name can be exchanged only for one that is in sight as well and means one thing.
    others = [t.name for t in scene.named if t.name != asked.answer and t.name not in "".join(asked.phrasings)]
    if asked.kind == "taller":
        others = [name for name in asked.about if name != asked.answer]
    return replace(asked, answer=others[0]) if others else None


def _two(phrasing: str, witness: Witness) -> tuple[str, str]:
    """The two things named, in the order of their mention."""
    found = sorted(
        (match.start(), name)
        for name in {*witness.names, "robot gripper"}
        for match in re.finditer(rf"\bthe {re.escape(name)}\b", phrasing)
    )
    assert len(found) == 2, (phrasing, found)
    return found[0][1], found[1][1]


def _side(asked: Question, phrasing: str, w: Witness) -> str | None:
    a, b = _two(phrasing, w)
    ahead = w.pixels[w.on(a)][:, 0].mean() < w.pixels[w.on(b)][:, 0].mean()
    return _choice(asked, phrasing, "left" if ahead else "right")


def _depth(asked: Question, phrasing: str, w: Witness) -> str | None:
    a, b = _two(phrasing, w)
    level = w.rays.forward[:2] / np.linalg.norm(w.rays.forward[:2])
    nearer = (w.middle(a)[:2] - w.middle(b)[:2]) @ level < 0
    return _choice(asked, phrasing, "in front" if nearer else "behind")


def _choice(asked: Question, phrasing: str, true: str) -> str | None:
    if asked.kind.endswith("choice"):
        return None if asked.answer == true else f"{asked.answer}, but {true}"
    said = next(word for word in ("left", "right", "in front", "behind") if word in phrasing)
    return None if (asked.answer == "yes") == (said == true) else f"{asked.answer}, but {true}"


def _taller(asked: Question, phrasing: str, w: Witness) -> str | None:
    names = _two(phrasing, w)
    heights = {name: np.ptp(w.corners(name)[:, 2]) for name in names}
    return None if max(heights, key=heights.get) == asked.answer else str(heights)


def _extreme(asked: Question, phrasing: str, w: Witness) -> str | None:
    seen = w.visible()
    if "camera" in phrasing:
        values = {name: float(np.linalg.norm(w.middle(name) - w.rays.eye)) for name in seen if seen.count(name) == 1}
    else:
        values = {name: float(w.pixels[w.on(name)][:, 0].mean()) for name in seen if seen.count(name) == 1}
    sign = -1 if any(word in phrasing for word in ("farthest away", "farthest from", "right")) else 1
    best = min(values, key=lambda name: sign * values[name])
    return None if sign * values[asked.answer] <= sign * values[best] else f"{best}: {values}"


def _nearest(asked: Question, phrasing: str, w: Witness) -> str | None:
    anchor = re.search(r"to the ([a-z ]+)[?.]", phrasing)
    assert anchor is not None
    name = anchor.group(1)
    others = [other for other in w.visible() if other != name and w.names.count(other) == 1]
    gaps = {other: float(np.linalg.norm(w.middle(other) - w.middle(name))) for other in others}
    return None if min(gaps, key=gaps.get) == asked.answer else str(gaps)


def _named(phrasing: str, w: Witness) -> str:
    (name,) = {n for n in {*w.names, "robot gripper"} if re.search(rf"\bthe (whole )?{re.escape(n)}\b", phrasing)}
    return name


def _point(asked: Question, phrasing: str, w: Witness) -> str | None:
    body, _ = w.at(asked.shown[0])
    return None if w.things.get(body) == _named(phrasing, w) else f"the ray meets {body}"


def _what(asked: Question, phrasing: str, w: Witness) -> str | None:
    assert REGION_MARK in phrasing
    body, _ = w.at(asked.pointed[0])
    return None if w.things.get(body) == asked.answer else f"the ray meets {body}"


def _box(asked: Question, phrasing: str, w: Witness) -> str | None:
    seen = w.pixels[w.on(_named(phrasing, w))]
    box = np.array(asked.shown[0].values) * w.rays.side
    low, high = seen.min(0), seen.max(0)
    inside = (low >= box[:2] - 0.5).all() and (high <= box[2:] + 0.5).all()
    # The raster may miss what is thinner than it.
    tight = (low - box[:2] <= 3 * STEP).all() and (box[2:] - high <= 3 * STEP).all()
    return None if inside and tight else f"rays say {low} to {high}, the box {box}"


def _count(asked: Question, phrasing: str, w: Witness) -> str | None:
    what = re.search(r"(?:How many|Count the|number of) ([a-z ]+?)(?: are| can|[ ]on)", phrasing)
    assert what is not None, phrasing
    *colour, plural = what.group(1).split()
    kind = SINGULAR.get(plural, plural.removesuffix("s"))
    counted = [name for name in w.names if kind in ("object", name.split()[-1])]
    counted = [name for name in counted if not colour or (name.split()[0] == colour[0] and " and " not in name)]
    return None if str(len(counted)) == asked.answer else f"{len(counted)} {what.group(1)} among {w.names}"


def _fits(asked: Question, phrasing: str, w: Witness) -> str | None:
    width = re.search(r"(\d+) cm", phrasing)
    assert width is not None
    narrowest = w.narrowest(_named(phrasing, w))
    said = "yes" if narrowest * 100 < int(width.group(1)) else "no"
    return None if said == asked.answer else f"{narrowest:.3f} m"


def _purpose(asked: Question, phrasing: str, w: Witness) -> str | None:
    words = HANDLES if "handle" in phrasing else CONTAINERS
    able = [name for name in w.visible() if name.endswith(words)]
    return None if able == [asked.answer] else str(able)


def _free(asked: Question, phrasing: str, w: Witness) -> str | None:
    x, y = asked.shown[0].values[0] * w.rays.side, asked.shown[0].values[1] * w.rays.side
    for turn in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        for radius in (0, 5, 10):
            geom, _ = w.rays.hit(x + radius * np.cos(turn), y + radius * np.sin(turn))
            if geom not in w.geoms[w.table]:
                return f"{radius} pixels beside it is {_name(w, geom)}"
    return None


def _name(w: Witness, geom: int) -> str:
    return str(w.model.geom(geom).name) if geom >= 0 else "nothing"


_CHECKS = {
    "side-choice": _side,
    "side-check": _side,
    "depth-choice": _depth,
    "depth-check": _depth,
    "taller": _taller,
    "extreme": _extreme,
    "nearest-to": _nearest,
    "point": _point,
    "box": _box,
    "what-at": _what,
    "count": _count,
    "grasp": _point,
    "fits": _fits,
    "purpose": _purpose,
    "free-space": _free,
}
