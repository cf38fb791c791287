"""A rollout's video is the same file whenever it is made."""

import hashlib

import numpy as np

from embodied_midtrain.allocation import all_blocks_kept
from embodied_midtrain.benchmarks.video import write_mp4


def test_the_same_frames_give_the_same_bytes_whatever_memory_held_before(tmp_path):
    rng = np.random.default_rng(0)
    frames = list(rng.integers(0, 255, (12, 100, 100, 3), dtype=np.uint8))
    found, held = set(), []
    with all_blocks_kept():
        for _ in range(60):
            held = [*held[-40:], rng.integers(0, 255, int(rng.integers(1, 300_000)), dtype=np.uint8)]
            held.pop(int(rng.integers(len(held))))
            write_mp4(tmp_path / "video.mp4", frames, 20.0)
            found.add(hashlib.sha256((tmp_path / "video.mp4").read_bytes()).hexdigest())
    assert len(found) == 1
