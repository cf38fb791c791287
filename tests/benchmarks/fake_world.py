"""A benchmark of a few lines: a light on a line of pixels has to be brought to a mark. Some of its tasks go wrong."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embodied_midtrain.benchmarks.protocol import Instructions
from embodied_midtrain.episodes import ActionSpec

CRASHES = "FAKE_WORLD_CRASHES"
"""Environment variable: a folder in which crashes are counted."""
SLOW = "FAKE_WORLD_SLOW"
"""Environment variable: seconds that a step takes, for tests that interrupt."""

SPEC = ActionSpec(
    names=("x", "gripper"),
    kind="delta",
    frame="world",
    rotation="none",
    gripper=1,
    gripper_closed=1,
    low=(-1.0, -1.0),
    high=(1.0, 1.0),
    rate=10.0,
)


class FakeWorld:
    name = "fake"
    tasks = ("slide", "repeats", "dies once", "dies", "raises", "hopeless")
    spec = SPEC

    def horizon(self, task):
        return 40

    def instructions(self, task):
        return Instructions((f"{task} to the mark", f"bring the light to the mark by {task}"), ("go to the mark",))

    def make(self, task, size):
        return FakeSimulation(task, size)


class FakeSimulation:
    def __init__(self, task, size):
        self.task, self.size = task, size

    def reset(self, state):
        random = np.random.default_rng(0 if self.task == "repeats" else state)
        self.state, self.steps = state, 0
        self.at = random.uniform(0, self.size / 3)
        self.mark = random.uniform(self.size / 2, self.size - 1)

    def step(self, action):
        self.steps += 1
        time.sleep(float(os.environ.get(SLOW, 0)))
        self._misfortune()
        self.at = float(np.clip(self.at + action[0], 0, self.size - 1))
        return self.task != "hopeless" and abs(self.at - self.mark) < 0.7

    def _misfortune(self):
        """In episode 1 (state 3), at the third step."""
        if self.state != 3 or self.steps != 3:
            return
        if self.task == "raises":
            raise FloatingPointError("the light has gone out")
        if self.task.startswith("dies"):
            marks = Path(os.environ[CRASHES])
            before = len(list(marks.iterdir()))
            if self.task == "dies" or before == 0:
                (marks / str(before)).touch()
                os._exit(7)

    def frame(self):
        frame = np.zeros((self.size, self.size, 3), np.uint8)
        frame[:, round(self.at), 0] = 255
        frame[:, round(self.mark), 1] = 255
        return frame

    def expert(self):
        return np.array([np.clip(self.mark - self.at, -1, 1), -1], np.float32)

    def proprioception(self):
        return np.array([self.at], np.float32)

    def start(self):
        return np.float64([self.at, self.mark]).tobytes()

    def close(self):
        pass


@dataclass(frozen=True)
class PixelActor:
    """Solves "slide" from the frame alone; `wrong_way` never does."""

    spec: ActionSpec = SPEC
    chunk: int = 6
    executed: int = 3
    size: int = 24
    wrong_way: bool = False

    @property
    def identity(self):
        return f"pixels {self.wrong_way} {self.executed}"

    def act(self, frames, instructions):
        assert len(frames) == len(instructions) and frames.dtype == np.uint8
        way = frames[:, 0, :, 1].argmax(1) - frames[:, 0, :, 0].argmax(1)
        steps = way[:, None] - np.sign(way)[:, None] * np.arange(self.chunk)
        x = np.where(np.sign(steps) == np.sign(way)[:, None], np.clip(steps, -1, 1), 0)
        return np.stack([-x if self.wrong_way else x, np.zeros_like(x)], -1).astype(np.float32)
