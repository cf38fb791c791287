"""Proof of trajectory-coupled data: what is projected lies where it is drawn, and every answer is found again.

    python -m tools.check_coupled                         Meta-World, its sorting benchmark, LIBERO
    python -m tools.check_coupled --worlds metaworld/pick-place-v3 --episodes 2 --size 224

Scripted experts play; their traces go through the demonstrations' file and `emt couple`. Beside that, at each look,
MuJoCo's own renderer draws a segmentation and its own camera (`mjvGLCamera`) is kept. From these, contacts and raw
positions the answers are computed again with formulas of their own. Printed are

- the offset of the projected fingers from the middle of their rendered mask, and that of the projected gripper point
  from a ball that MuJoCo draws there, as parts of the picture's side, for each world and camera;
- by kind, how many answers were computed again and how many differ. Of the sub-actions (plan, phase, next) only
  what contacts tell is checked: whether something is held before, then and later.

The exit status is 1 on a mismatch, on fewer than `--least` answers, and where the fingers' median offset or any of the
point's is over 2 %.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.benchmarks.protocol import open_benchmark, training_state
from embodied_midtrain.coupled.couple import CoupleConfig, couple, read_facts
from embodied_midtrain.coupled.opening import Traces
from embodied_midtrain.coupled.projection import CLOSE, finger_fit
from embodied_midtrain.coupled.questions import CATEGORY
from embodied_midtrain.coupled.recording import Recorder, recorded_traces
from embodied_midtrain.episodes import Episode
from embodied_midtrain.extras import require
from embodied_midtrain.robots.hdf5 import close_header, write_demo, write_header
from embodied_midtrain.simulation.camera import FreeCamera
from embodied_midtrain.simulation.rendering import prepare_mujoco
from tools.coupled_answers import found_again

WORLDS = (
    "metaworld/pick-place-v3",
    "metaworld/drawer-open-v3",
    "metaworld_sorting/animal",
    "libero_object/0",
    "libero_spatial/0",
)


@dataclass
class Fact:
    """One look, as MuJoCo has it.

    Attributes:
        shown: by camera, (object's id, type) of each pixel.
        camera: by camera, a function from world points to (x, y), parts of the picture.
        low, high: of each thing's box, from the geoms' own shapes.
        ball: by camera, the middle of a ball that was drawn at the gripper's place, parts of the picture; None where
            it is outside.
    """

    shown: dict[str, np.ndarray]
    camera: dict[str, Any]
    low: np.ndarray
    high: np.ndarray
    ball: dict[str, np.ndarray | None]


class Witness:
    """Sees a simulation with MuJoCo's own renderer."""

    def __init__(self, truth: Any, size: int) -> None:
        self.mujoco = prepare_mujoco()
        self.truth, self.model, self.data = truth, truth._model, truth._data
        self.renderer = self.mujoco.Renderer(self.model, size, size)
        self.places: list[np.ndarray] = []
        self.holding: list[set[int]] = []
        self.facts: list[Fact] = []

    def step(self, look: bool) -> None:
        tips = [self.data.site_xpos[site] for site in self.truth._gripper.tips]
        self.places.append(sum(tips) / len(tips))
        self.holding.append(self._held())
        if look:
            self.facts.append(self._fact())

    def _held(self) -> set[int]:
        """Things that every finger touches, pair by pair of contacts."""
        touched = [set() for _ in self.truth._gripper.pads]
        for n in range(self.data.ncon):
            pair = [int(self.model.geom_bodyid[g]) for g in (self.data.contact[n].geom1, self.data.contact[n].geom2)]
            for mine, other in (pair, pair[::-1]):
                for finger, bodies in enumerate(self.truth._gripper.pads):
                    if mine in bodies:
                        touched[finger] |= {n for n, prop in enumerate(self.truth.props) if other in prop.bodies}
        return set.intersection(*touched)

    def _camera(self, view: str) -> Any:
        camera = self.truth.views[view]
        if isinstance(camera, str):
            return camera
        assert isinstance(camera, FreeCamera)
        made = self.mujoco.MjvCamera()
        made.lookat[:], made.distance = camera.lookat, camera.distance
        made.azimuth, made.elevation = camera.azimuth, camera.elevation
        self.model.vis.global_.fovy = camera.fovy
        return made

    def _fact(self) -> Fact:
        shown, camera, ball = {}, {}, {}
        for view in self.truth.views:
            self.renderer.enable_segmentation_rendering()
            self.renderer.update_scene(self.data, self._camera(view))
            shown[view] = self.renderer.render().copy()
            self.renderer.disable_segmentation_rendering()
            pair = self.renderer.scene.camera
            gl = self.mujoco.mjv_averageCamera(pair[0], pair[1])
            size = shown[view].shape[:2]
            camera[view] = _seen_by(gl, size)
            ball[view] = self._ball(view)
        corners = [self._box(prop) for prop in self.truth.props]
        return Fact(shown, camera, np.array([c[0] for c in corners]), np.array([c[1] for c in corners]), ball)

    def _ball(self, view: str) -> np.ndarray | None:
        """Nothing but a ball, drawn where the gripper is."""
        self.renderer.update_scene(self.data, self._camera(view))
        scene = self.renderer.scene
        scene.ngeom = 1
        geom = scene.geoms[0]
        kind, eye = self.mujoco.mjtGeom.mjGEOM_SPHERE, np.eye(3).ravel()
        self.mujoco.mjv_initGeom(
            geom, kind, np.full(3, 0.006), self.places[-1], eye, np.array([1, 0, 0, 1], np.float32)
        )
        geom.emission = 1.0
        scene.flags[self.mujoco.mjtRndFlag.mjRND_SKYBOX] = 0
        where = np.argwhere(self.renderer.render()[..., 0] > 60)
        size = self.renderer.height
        if not len(where) or where.min() == 0 or where.max() == size - 1:
            return None
        return (where.mean(0)[::-1] + 0.5) / size

    def _box(self, prop: Any) -> tuple[np.ndarray, np.ndarray]:
        """From the analytic extents of geoms, all vertices of meshes."""
        low, high = np.full(3, np.inf), np.full(3, -np.inf)
        for geom in prop.geoms:
            place, turn = self.data.geom_xpos[geom], self.data.geom_xmat[geom].reshape(3, 3)
            size, kinds = self.model.geom_size[geom], self.mujoco.mjtGeom
            kind = self.model.geom_type[geom]
            if kind == kinds.mjGEOM_MESH:
                mesh = self.model.geom_dataid[geom]
                first = self.model.mesh_vertadr[mesh]
                vertices = self.model.mesh_vert[first : first + self.model.mesh_vertnum[mesh]]
                points = np.einsum("ij,nj->ni", turn, vertices) + place
                low, high = np.minimum(low, points.min(0)), np.maximum(high, points.max(0))
                continue
            axis = turn[:, 2]
            if kind == kinds.mjGEOM_BOX:
                reach = np.abs(turn) @ size
            elif kind == kinds.mjGEOM_CYLINDER:
                reach = size[1] * np.abs(axis) + size[0] * np.sqrt(np.maximum(0, 1 - axis**2))
            elif kind == kinds.mjGEOM_CAPSULE:
                reach = size[1] * np.abs(axis) + size[0]
            elif kind == kinds.mjGEOM_ELLIPSOID:
                reach = np.sqrt((turn**2) @ size**2)
            else:
                reach = np.full(3, size[0])
            low, high = np.minimum(low, place - reach), np.maximum(high, place + reach)
        for site in prop.sites:
            place, radius = self.data.site_xpos[site], self.model.site_size[site, 0]
            low, high = np.minimum(low, place - radius), np.maximum(high, place + radius)
        return low, high

    def close(self) -> None:
        self.renderer.close()


def _seen_by(gl: Any, size: tuple[int, int]) -> Any:
    """From the frustum that OpenGL gets."""
    position, ahead, up = (np.array(v, float) for v in (gl.pos, gl.forward, gl.up))
    right = np.cross(ahead, up)
    half = (gl.frustum_top - gl.frustum_bottom) / 2
    near, aspect = gl.frustum_near, size[1] / size[0]

    def project(point: np.ndarray) -> np.ndarray:
        way = np.asarray(point, float) - position
        scale = near / (way @ ahead) / half
        return np.array([(1 + way @ right * scale / aspect) / 2, (1 - way @ up * scale) / 2])

    return project


@dataclass
class Played:
    """One episode: its MuJoCo side."""

    world: str
    props: tuple[Any, ...]
    model: Any
    gripper: Any
    places: np.ndarray
    holding: list[set[int]]
    facts: list[Fact]
    nobj: tuple[int, int]

    def mask(self, fact: Fact, view: str, thing: int) -> np.ndarray:
        ids, types = fact.shown[view][..., 0], fact.shown[view][..., 1]
        prop, (geom, site) = self.props[thing], self.nobj
        return (np.isin(ids, prop.geoms) & (types == geom)) | (np.isin(ids, prop.sites) & (types == site))

    def centre(self, fact: Fact, thing: int) -> np.ndarray:
        return (fact.low[thing] + fact.high[thing]) / 2

    def free(self, thing: int) -> bool:
        """Whether it has a joint of its own that lets it go anywhere."""
        joints = [j for j in range(self.model.njnt) if self.model.jnt_bodyid[j] in self.props[thing].bodies]
        return any(self.model.jnt_type[j] == 0 for j in joints)


def play(world: str, episodes: int, size: int, every: int, folder: Path) -> tuple[Path, list[Played]]:
    """Let the expert play; the demonstrations' file and what MuJoCo says."""
    name, task = world.split("/")
    benchmark = open_benchmark(name)
    task = benchmark.tasks[int(task)] if task.isdigit() else task
    simulation, played = benchmark.make(task, size), []
    path = folder / f"{world.replace('/', '-')}.hdf5"
    with require("h5py", "data").File(path, "w") as file:
        wording = benchmark.instructions(task).training[0]
        data = write_header(file, task=task, instruction=wording, spec=benchmark.spec, environment={})
        for number in range(episodes):
            simulation.reset(training_state(0, number))
            truth = simulation.truth()
            recorder, witness = Recorder(truth, every), Witness(truth, size)
            frames, actions, left = [], [], -1
            for step in range(benchmark.horizon(task)):
                actions.append(simulation.expert())
                frames.append(simulation.frame())
                recorder.step(frames[-1])
                witness.step(step % every == 0)
                if simulation.step(actions[-1]) and left < 0:
                    left = 5
                left -= left > 0
                if left == 0:
                    break
            write_demo(data, number, Episode("", task, wording, np.stack(frames), np.stack(actions)))
            recorder.write(data[f"demo_{number}"], benchmark.spec.rate)
            kinds = (int(witness.mujoco.mjtObj.mjOBJ_GEOM), int(witness.mujoco.mjtObj.mjOBJ_SITE))
            places = np.array(witness.places)
            played.append(
                Played(world, truth.props, truth._model, truth._gripper, places, witness.holding, witness.facts, kinds)
            )
            witness.close()
        close_header(file, {})
    simulation.close()
    return path, played


def check_places(paths: list[Path], played: dict[str, Played]) -> list[str]:
    """Print offsets by world and camera; what is over the limit."""
    fingers, ball = defaultdict(list), defaultdict(list)
    covered: Counter[tuple[str, str]] = Counter()
    for trace in recorded_traces(paths, Skips()):
        own = played[trace.id]
        for view in trace.views:
            fit = finger_fit(trace, view)
            fingers[own.world, view.name] += fit.offsets
            covered[own.world, view.name] += fit.covered
            for look, fact in enumerate(own.facts):
                if fact.ball[view.name] is not None:
                    seen = view.cameras[look].project(trace.place[trace.looks[look]])[:2] / max(view.size)
                    ball[own.world, view.name].append(float(np.linalg.norm(seen - fact.ball[view.name])))
    titles = f"{'fingers: median':>16}{'95 %':>8}{'worst':>8}{'ball: worst':>13}"
    print(f"{'world and camera':<38}{'looks':>6}{'hidden':>7}{titles}")
    faults = []
    for key, offsets in fingers.items():
        parts = np.quantile(offsets, [0.5, 0.95, 1.0])
        worst = max(ball[key], default=0.0)
        print(
            f"{' '.join(key):<38}{len(offsets):>6}{covered[key]:>7}{parts[0]:>16.2%}{parts[1]:>8.2%}{parts[2]:>8.2%}"
            f"{worst:>13.2%} ({len(ball[key])})"
        )
        if parts[0] > CLOSE or worst > CLOSE:
            faults.append(f"{' '.join(key)}: fingers {parts[0]:.2%}, ball {worst:.2%}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", default=WORLDS, help="benchmark/task, or benchmark/number of the task")
    parser.add_argument("--episodes", type=int, default=2)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--every", type=int, default=8)
    parser.add_argument("--least", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths, played = [], {}
        for world in given.worlds:
            path, episodes = play(world, given.episodes, given.size, given.every, folder)
            paths.append(path)
            played |= {f"{path.stem}/demo_{n}": episode for n, episode in enumerate(episodes)}
            print(f"played {world}: {sum(len(e.facts) for e in episodes)} looks", flush=True)
        faults = check_places(paths, played)
        config = CoupleConfig(looks_per_episode=10**6, questions_per_look=len(CATEGORY))
        traces = Traces("checked", "checked", None, Skips(), lambda: recorded_traces(paths, Skips()))
        couple(folder / "pool", config, episodes=traces)
        rows = list(read_facts(folder / "pool"))

    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        fault = found_again(row, played[row["episode"]])
        counts[row["kind"]]["wrong" if fault else "right"] += 1
        if fault:
            faults.append(
                f"{row['id']} {row['views']}: {row['question']!r} -> {row['answer']!r} {row['shown']}: {fault}"
            )
    for kind, count in sorted(counts.items()):
        print(f"{kind:<14}{count.total():>6} answers{count['wrong']:>6} differ")
    total = sum(count.total() for count in counts.values())
    print(f"{total} answers computed again, {sum(c['wrong'] for c in counts.values())} differ")
    for fault in faults[:40]:
        print("FAULT", fault)
    return 1 if faults or total < given.least else 0


if __name__ == "__main__":
    sys.exit(main())
