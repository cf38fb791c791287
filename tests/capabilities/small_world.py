"""A world of boxes that needs no simulator: a hand takes a block to a plate, past a cup, and goes away.

Pictures are cast ray by ray into the boxes, so that nothing is shared with `Pinhole.project`. Episodes are written and
read as `emt demos --truth-every` writes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from embodied_midtrain.artifacts import Artifact, open_stage
from embodied_midtrain.coupled.recording import Recorder
from embodied_midtrain.episodes import ActionSpec, Episode
from embodied_midtrain.robots.hdf5 import close_header, write_demo, write_header
from embodied_midtrain.simulation.camera import FreeCamera, Pinhole
from embodied_midtrain.simulation.truth import AGENT, ARM, FINGERS, FIRST, NOTHING, WRIST, Hand, Look, Prop, Sight

SIDE = 64
SPEC = ActionSpec(("x", "y", "z", "gripper"), "delta", "world", "none", 3, -1, (-1,) * 4, (1,) * 4, 10.0)
NAMES = ("red block", "blue plate", "green cup")
HALF = np.array([(0.025, 0.025, 0.025), (0.06, 0.06, 0.008), (0.03, 0.03, 0.05)])
STAGES = ("approach", "grasp", "carry", "release", "retreat")
LASTS = (18, 6, 18, 6, 14)
"""Steps of each stage."""


@dataclass
class Script:
    """What happens, step by step: places [steps, 3], openings, held things, and the block's place."""

    seed: int
    held: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.block = np.array([rng.uniform(-0.1, 0.0), rng.uniform(-0.05, 0.05), 0.025])
        self.plate = np.array([rng.uniform(0.15, 0.2), rng.uniform(-0.05, 0.05), 0.008])
        self.cup = np.array([rng.uniform(-0.15, 0.1), 0.2, 0.05])
        start, above = np.array([-0.25, -0.2, 0.3]), self.plate + np.array([0, 0, 0.06])
        away = above + np.array([0.05, -0.15, 0.2])
        ways = ((start, self.block), (self.block, self.block), (self.block, above), (above, above), (above, away))
        place, opening, stage = [], [], []
        for number, ((a, b), steps) in enumerate(zip(ways, LASTS, strict=True)):
            for step in range(steps):
                part = (step + 1) / steps
                place.append(a + part * (b - a))
                opening.append({1: 1 - 0.6 * part, 2: 0.4, 3: 0.4 + 0.6 * part}.get(number, 1.0))
                stage.append(number)
        self.place, self.opening, self.stage = np.array(place), np.array(opening), np.array(stage)
        self.held = [
            0 if s == 2 or (s == 1 and o < 0.45) or (s == 3 and o < 0.55) else -1
            for s, o in zip(stage, opening, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.place)

    def centres(self, step: int) -> np.ndarray:
        carried = self.block if step < sum(LASTS[:2]) else self.place[min(step, sum(LASTS[:4]) - 1)]
        return np.array([carried, self.plate, self.cup])

    def fingers(self, step: int) -> np.ndarray:
        """Middles of the two fingers, and of the arm above them."""
        wide = (0, 0.02 + 0.03 * self.opening[step], 0)
        return np.array([self.place[step] + wide, self.place[step] - wide, self.place[step] + (0, 0, 0.12)])


FINGER, ARM_HALF = np.array([0.012, 0.01, 0.03]), np.array([0.03, 0.08, 0.06])


class World:
    """What a simulation's `truth()` gives, of a script."""

    props = tuple(Prop(name, (), grasped=name != "blue plate") for name in NAMES)
    forward = np.array([1.0, 0.0, 0.0])

    def __init__(self, script: Script) -> None:
        self.script, self.step = script, 0
        self.views = {AGENT: "", WRIST: ""}

    def hand(self) -> Hand:
        s, held = self.script, self.script.held[self.step]
        return Hand(s.place[self.step], float(s.opening[self.step]), held, held)

    def boxes(self) -> tuple[np.ndarray, np.ndarray, list[int]]:
        s = self.script
        middles = np.concatenate([s.centres(self.step), s.fingers(self.step)])
        halves = np.concatenate([HALF, [FINGER, FINGER, ARM_HALF]])
        return middles - halves, middles + halves, [FIRST, FIRST + 1, FIRST + 2, FINGERS, FINGERS, ARM]

    def look(self, drawn: object = None) -> Look:
        low, high, _ = self.boxes()
        agent = FreeCamera((0.0, 0.0, 0.05), 0.9, 30.0, -40.0).pinhole((SIDE, SIDE))
        eye = self.script.place[self.step] + (-0.1, 0, 0.12)
        wrist = Pinhole.of_fovy(60.0, (SIDE, SIDE), eye, np.array([(0, -1, 0), (0.8, 0, 0.6), (0.6, 0, -0.8)], float))
        corners = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)])
        fingers = np.stack([low[n] + corners * (high - low)[n] for n in (3, 4)])
        sights = {name: self.sight(camera) for name, camera in ((AGENT, agent), (WRIST, wrist))}
        return Look(sights, low[:3], high[:3], fingers)

    def sight(self, camera: Pinhole) -> Sight:
        low, high, ids = self.boxes()
        columns, rows = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)
        right, up, forward = camera.axes
        sight = forward + ((columns - SIDE / 2) / camera.focal[0])[..., None] * right
        sight = sight - ((rows - SIDE / 2) / camera.focal[1])[..., None] * up
        nearest, seen, alone = np.full((SIDE, SIDE), np.inf), np.full((SIDE, SIDE), NOTHING, np.uint8), []
        for a, b, number in zip(low, high, ids, strict=True):
            with np.errstate(divide="ignore", invalid="ignore"):
                ends = np.stack([(a - camera.position) / sight, (b - camera.position) / sight])
            enter, leave = ends.min(0).max(-1), ends.max(0).min(-1)
            met = (enter < leave) & (enter > 0)
            alone.append(met.sum())
            seen[met & (enter < nearest)] = number
            nearest = np.where(met & (enter < nearest), enter, nearest)
        colours = np.array(
            [(90, 90, 90), (150, 60, 20), (20, 20, 20), (220, 30, 30), (30, 30, 220), (30, 200, 30)], np.uint8
        )
        return Sight(colours[seen], camera, seen, np.array(alone[:3], np.float32))


def make_demos(out: Path, episodes: int = 8, *, truth: bool = True, every: int = 3) -> Artifact:
    """A demos artifact of one task, "tidy"."""
    import h5py

    with open_stage(out, "demos", {}, {}) as run:
        with h5py.File(run.file("tidy.hdf5"), "w") as file:
            data = write_header(
                file, task="tidy", instruction="put the red block on the blue plate", spec=SPEC, environment={}
            )
            frames_in_all = 0
            for number in range(episodes):
                script = Script(number)
                world = World(script)
                recorder, frames = Recorder(world, every), []  # type: ignore[arg-type]
                for world.step in range(len(script)):
                    frames.append(world.look().sights[AGENT].frame)
                    recorder.step(frames[-1])
                moved = np.diff(script.place, axis=0, append=script.place[-1:])
                actions = np.concatenate([moved * 10, -np.sign(0.5 - script.opening)[:, None]], 1).astype(np.float32)
                episode = Episode(str(number), "tidy", "put the red block on the blue plate", np.stack(frames), actions)
                write_demo(data, number, episode)
                if truth:
                    recorder.write(data[f"demo_{number}"], SPEC.rate)
                frames_in_all += len(frames)
            close_header(file, {"train": range(episodes)})
        return run.finish({"episodes": episodes, "frames": frames_in_all, "tasks": {"tidy": {"episodes": episodes}}})
