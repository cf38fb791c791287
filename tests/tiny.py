"""Tiny random backbones and made-up robots: what training and policies are tested with in seconds."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch

from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.episodes import ActionSpec, Episode
from tests.tiny_families import MAKERS

KINDS = tuple(MAKERS)
"""One of every family."""
SPEC = ActionSpec(("x", "y", "gripper"), "delta", "world", "none", 2, 1, (-1.0,) * 3, (1.0,) * 3, 10.0)


def backbone(kind: str) -> Backbone:
    """A fresh one of `KINDS`, of some ten thousand weights."""
    return load_backbone(folder(kind))


@cache
def folder(kind: str) -> Path:
    """A folder that holds one, written once."""
    out = Path(mkdtemp(prefix=f"tiny-{kind}-"))
    torch.manual_seed(0)
    model, processor = MAKERS[kind]()
    # One tile of four tokens, though 256 would be let in.
    model.config.embodied_image_tokens = 16 if kind.startswith("qwen") else 4
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return out


class Dots:
    """Robots whose gripper is a dot that goes to where the instruction says: pictures and words both matter."""

    name = "dots"
    spec = SPEC

    def __init__(self, episodes: int = 6, length: int = 8, side: int = 32) -> None:
        rng = np.random.default_rng(0)
        self.episodes = []
        for n in range(episodes):
            at = rng.uniform(0.2, 0.8, 2)
            goal, said = ((0.1, 0.5), "go left") if n % 2 else ((0.9, 0.5), "go right")
            if n % 4 > 1:
                said = said.replace("go", "move")
            frames, actions = [], []
            for _ in range(length):
                frame = np.zeros((side, side, 3), np.uint8)
                row, column = (int(v * (side - 6)) for v in (at[1], at[0]))
                frame[row : row + 6, column : column + 6] = (255, 200, 0)
                move = np.clip(3.0 * (np.asarray(goal) - at), -1, 1)
                frames.append(frame)
                actions.append([*move, 1.0 if abs(goal[0] - at[0]) < 0.2 else -1.0])
                at = np.clip(at + 0.1 * move, 0, 1)
            task = "left-v0" if n % 2 else "right-v0"
            self.episodes.append(Episode(f"e{n}", task, said, np.stack(frames), np.asarray(actions, np.float32)))

    def __iter__(self):
        return iter(self.episodes)

    def fingerprint(self) -> str:
        return f"dots-{len(self.episodes)}"
