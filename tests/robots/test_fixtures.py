"""Small data sets that reference tools wrote (the scripts beside them say how), read without those tools."""

from pathlib import Path

import numpy as np
import pytest

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.robots.opening import open_robots

FIXTURES = Path(__file__).parent / "fixtures"


def test_a_lerobot_data_set_that_lerobot_wrote() -> None:
    pytest.importorskip("av")
    skips = Skips()
    robots = open_robots(FIXTURES / "lerobot", skips)
    assert (robots.spec.names, robots.spec.rate, robots.spec.kind) == (("x", "gripper"), 10.0, "unknown")
    episodes = list(robots)
    assert [e.instruction for e in episodes] == ["push number 0", "push number 1"] and not skips.rows
    for number, (episode, length) in enumerate(zip(episodes, (5, 3), strict=True)):
        np.testing.assert_allclose(episode.actions, [[number, t / 10] for t in range(length)], atol=1e-6)
        shades = episode.frames[:].mean(axis=(1, 2, 3))
        np.testing.assert_allclose(shades, [20 + 100 * number + 10 * t for t in range(length)], atol=3)


def test_an_rlds_data_set_that_tensorflow_datasets_wrote() -> None:
    pytest.importorskip("google_crc32c")
    skips = Skips()
    robots = open_robots(FIXTURES / "rlds", skips)
    episodes = sorted(robots, key=lambda e: e.instruction)
    assert [e.instruction for e in episodes] == ["push number 0", "push number 1"] and not skips.rows
    for number, (episode, length) in enumerate(zip(episodes, (4, 3), strict=True)):
        assert episode.frames.shape == (length, 12, 16, 3)
        assert [int(f[0, 0, 0]) for f in episode.frames[:]] == [10 * number + t for t in range(length)]
        wanted = np.arange(7, dtype=np.float32) / 10 + np.arange(length, dtype=np.float32)[:, None]
        np.testing.assert_array_equal(episode.actions, wanted)
