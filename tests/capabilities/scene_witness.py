"""Answers questions about tabletop scenes and cameras a second time: by sight rays, and by MuJoCo's own camera."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np

from embodied_midtrain.capabilities import camera
from embodied_midtrain.samples import Region
from embodied_midtrain.simulation.camera import FreeCamera
from embodied_midtrain.sources.asking import Question
from embodied_midtrain.sources.registry.scenes_asking import SIDE
from embodied_midtrain.sources.registry.scenes_tabletop import TabletopStage
from tests.sources.registry.rays import Rays
from tests.sources.registry.scene_answers import Witness, spoilt, wrong

NUMBERS = ("field-of-view", "tilt", "height")


def witness(stage: TabletopStage, name: str) -> Witness:
    """Of the scene that a sample's name tells."""
    _, seed, number = name.split("-")
    scene = stage.scene(int(seed), int(number))
    geoms = {**stage.geoms, "": [stage.model.geom("table").id]}
    return Witness(scene, Rays(stage.model, stage.data, scene.camera, SIDE), geoms, table="")


def question(row: dict[str, Any]) -> Question:
    """The question of a row."""
    kinds = {2: "point", 4: "box"}
    pointed, shown = (
        tuple(Region(kinds[len(values)], tuple(values)) for values in row[side]) for side in ("pointed", "shown")
    )
    return Question(row["kind"], (row["question"],), row["answer"], tuple(row["about"]), pointed, shown)


def wrong_scene(row: dict[str, Any], w: Witness) -> str:
    """Empty where the answer holds."""
    if row["kind"] in _CHECKS:
        return _CHECKS[row["kind"]](row, w)
    return wrong(question(row), row["question"], w)


def spoilt_scene(row: dict[str, Any], w: Witness) -> dict[str, Any] | None:
    """With a wrong answer; None where there is nothing to take one from."""
    if row["kind"] == "orientation":
        return {**row, "answer": "away" if row["answer"] == "across" else "across"}
    if row["kind"] == "gap":
        return {**row, "answer": f"{int(row['answer'].split()[0]) + 5} cm"}
    if row["kind"] == "free-space":
        # The picture's corner may be free as well.
        return {**row, "shown": [w.scene.point_on(thing.mask).values for thing in w.scene.clear[:1]]}
    lie = spoilt(question(row), w.scene)
    return None if lie is None else {**row, "answer": lie.answer, "shown": [list(r.values) for r in lie.shown]}


def _middle(w: Witness, name: str) -> np.ndarray:
    """Of a thing's box: of its meshes' own corners where it has some, for boxes around turned parts reach too far."""
    model, corners = w.model, []
    for geom in w.geoms[w.body(name)]:
        mesh = model.geom_dataid[geom]
        if mesh < 0:
            return w.middle(name)
        first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        turn = w.data.geom_xmat[geom].reshape(3, 3)
        corners.append(model.mesh_vert[first : first + count] @ turn.T + w.data.geom_xpos[geom])
    found = np.concatenate(corners)
    return (found.min(0) + found.max(0)) / 2


def _gap(row: dict[str, Any], w: Witness) -> str:
    a, b = {name for name in w.names if re.search(rf"\b(the|and) {re.escape(name)}\b", row["question"])}
    far = 100 * float(np.linalg.norm(_middle(w, a) - _middle(w, b)))
    return "" if abs(far - int(row["answer"].split()[0])) < 2.6 else f"{far:.1f} cm"


def _orientation(row: dict[str, Any], w: Witness) -> str:
    """The long edge of the smallest rectangle around the corners of MuJoCo's boxes, from above."""
    (name,) = {name for name in w.names if f"the {name}" in row["question"]}
    corners = w.corners(name)[:, :2]
    turns = np.deg2rad(np.arange(0, 90))
    spans = [np.ptp(corners @ np.array([(np.cos(t), -np.sin(t)), (np.sin(t), np.cos(t))]), axis=0) for t in turns]
    best = int(np.argmin([a * b for a, b in spans]))
    long = turns[best] + (0 if spans[best][0] > spans[best][1] else np.pi / 2)
    along = abs(np.array([np.cos(long), np.sin(long)]) @ (w.rays.forward[:2] / np.linalg.norm(w.rays.forward[:2])))
    true = "away" if along > np.sqrt(0.5) else "across"
    return "" if true == row["answer"] else f"{row['answer']}, but {true} ({along:.2f})"


def _referred(row: dict[str, Any], w: Witness) -> str:
    """What the ray through the point meets has to be the answer to the question for its name."""
    body, _ = w.at(Region("point", tuple(row["shown"][0])))
    name = w.things.get(body, "")
    if name not in w.names:
        return f"the ray meets {body or 'nothing'}"
    words = row["about"][1]
    kind = "nearest-to" if "nearest to the" in words and "camera" not in words else "extreme"
    asked = f"Which object is {words.removeprefix('the object that is ').removeprefix('the ')}?"
    return wrong(replace(question(row), kind=kind, answer=name, shown=()), asked, w)


_CHECKS = {"gap": _gap, "orientation": _orientation, "referred": _referred}


class Eye:
    """A camera as MuJoCo sets it up to draw."""

    def __init__(self, stage: TabletopStage, one: FreeCamera) -> None:
        stage._renderer.render(stage.data, one)
        drawn = stage._renderer._scene.camera[0]
        self.place, self.ahead = np.array(drawn.pos, float), np.array(drawn.forward, float)
        self.field = 2 * np.degrees(np.arctan((drawn.frustum_top - drawn.frustum_bottom) / 2 / drawn.frustum_near))
        self.right = np.cross(self.ahead, np.array(drawn.up, float))

    @property
    def tilt(self) -> float:
        return float(np.degrees(np.arcsin(-self.ahead[2])))


def wrong_camera(row: dict[str, Any], stage: TabletopStage) -> str:
    """Empty where the answer holds for the cameras of the scene that the row names."""
    _, seed, number = row["episode"].split("-")
    pair = camera.draw_pair(stage.arrange(int(seed), int(number))[1])
    eyes = {"first": Eye(stage, pair.first), "second": Eye(stage, pair.second)}
    if row["kind"] in NUMBERS:
        eye, said = eyes[row["views"][0]], int(row["answer"].split()[0])
        value = {"field-of-view": eye.field, "tilt": eye.tilt, "height": 100 * eye.place[2]}[row["kind"]]
        near = {"field-of-view": 4.1, "tilt": 7.5, "height": 10.0}[row["kind"]]
        return "" if abs(value - said) < near else f"{value:.1f}"
    true = _between(row["kind"], *eyes.values())
    return "" if true == row["answer"] else f"{row['answer']}, but {true}"


def _between(kind: str, a: Eye, b: Eye) -> str:
    # Both look at one place: where their sights meet.
    reach = [float(np.linalg.norm(eye.place - _looked_at(a, b))) for eye in (a, b)]
    # To the left is what lies against the first camera's right; the way round is told by the level directions.
    level = [eye.ahead[:2] / np.linalg.norm(eye.ahead[:2]) for eye in (a, b)]
    turn = np.degrees(np.arctan2(level[0][0] * level[1][1] - level[0][1] * level[1][0], level[0] @ level[1]))
    side = "right" if (b.place - a.place) @ a.right > 0 else "left"
    if kind == "turn":
        return f"{15 * round(abs(turn) / 15)} degrees to its {side}"
    if kind in ("higher", "steeper", "nearer-camera"):
        more = {"higher": b.place[2] > a.place[2], "steeper": b.tilt > a.tilt, "nearer-camera": reach[1] < reach[0]}
        return "second" if more[kind] else "first"
    if abs(b.field - a.field) > 1:
        return "zoomed in" if b.field < a.field else "zoomed out"
    if abs(turn) > 1:
        return f"to its {side}"
    if abs(b.tilt - a.tilt) > 1:
        return "up" if b.tilt > a.tilt else "down"
    return "closer" if reach[1] < reach[0] else "farther away"


def _looked_at(a: Eye, b: Eye) -> np.ndarray:
    """The point nearest to both sights; on one sight, the table's level, where they are the same."""
    matrix = np.array([(a.ahead @ a.ahead, -a.ahead @ b.ahead), (a.ahead @ b.ahead, -b.ahead @ b.ahead)])
    if abs(np.linalg.det(matrix)) < 1e-6:
        return a.place + (0.03 - a.place[2]) / a.ahead[2] * a.ahead
    far = np.linalg.solve(matrix, np.array([(b.place - a.place) @ a.ahead, (b.place - a.place) @ b.ahead]))
    return a.place + far[0] * a.ahead


def spoilt_camera(row: dict[str, Any]) -> dict[str, Any]:
    """With a wrong answer."""
    given = row["answer"]
    if row["kind"] in (*NUMBERS, "turn"):
        number, *rest = given.split()
        return {**row, "answer": " ".join([str(int(number) + (20 if row["kind"] == "height" else 15)), *rest])}
    if row["kind"] == "change":
        return {**row, "answer": camera.CHANGES[(camera.CHANGES.index(given) + 1) % len(camera.CHANGES)]}
    return {**row, "answer": "first" if given == "second" else "second"}
