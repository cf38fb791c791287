from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.util import find_spec

import numpy as np
import pytest

from embodied_midtrain.serving.protocol import open_protocol

# vla-eval comes with the extra "serve".
collect_ignore_glob = [] if find_spec("vla_eval") else ["test_*.py"]
LIBERO = open_protocol("libero-10")


@dataclass
class Plain:
    """An actor whose actions tell what it was shown: the frame's mean, the instruction's length, the time."""

    spec: object = LIBERO.spec
    chunk: int = 4
    executed: int = 3
    size: int = 32
    identity: str = "plain"
    batches: list = field(default_factory=list)

    def act(self, frames, instructions):
        self.batches.append(len(frames))
        assert frames.dtype == np.uint8 and frames.ndim == 4
        actions = np.zeros((len(frames), self.chunk, self.spec.width), np.float32)
        actions[..., 0] = frames.mean((1, 2, 3))[:, None] / 255
        actions[..., 1] = np.array([len(text) for text in instructions])[:, None] / 100
        actions[..., 2] = np.arange(self.chunk) / 10
        actions[..., 3] = frames[:, 0, 0, 0][:, None] / 255
        actions[..., -1] = 1.0
        return actions


@pytest.fixture
def actor():
    return Plain()


@pytest.fixture
def narrow():
    return Plain(spec=replace(LIBERO.spec, gripper_closed=-1))
