"""Against lerobot: it reads what our writer wrote, and we read what it wrote. Runs where lerobot is installed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.episodes import ActionSpec, Episode
from embodied_midtrain.robots.export import IMAGE, ExportConfig, export_lerobot
from embodied_midtrain.robots.opening import open_robots
from tests.robots.test_lerobot import SIDE, SPEC, Made, check, shade

LENGTHS = (7, 4, 5)


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("lerobot.datasets.lerobot_dataset", exc_type=ImportError).LeRobotDataset


def test_lerobot_reads_what_we_wrote(tmp_path: Path, reference: Any) -> None:
    export_lerobot(Made(LENGTHS), tmp_path / "made", ExportConfig(episodes_per_file=2))
    theirs = reference("us/made", root=tmp_path / "made", video_backend="pyav")
    assert (theirs.num_episodes, theirs.num_frames, theirs.fps) == (3, 16, 10)
    ours = [(e, t) for e, length in enumerate(LENGTHS) for t in range(length)]
    for n, (e, t) in enumerate(ours):
        row = theirs[n]
        assert (row["episode_index"].item(), row["frame_index"].item(), row["index"].item()) == (e, t, n)
        assert row["task"] == f"push number {e % 2}"
        np.testing.assert_allclose(row["action"].numpy(), [e / 10, t / 100], atol=1e-6)
        assert row[IMAGE].shape == (3, SIDE, SIDE)
        assert abs(row[IMAGE].mean().item() * 255 - shade(e, t)) <= 2
    stats = theirs.meta.stats["action"]
    np.testing.assert_allclose(stats["mean"], np.concatenate([e.actions for e in Made(LENGTHS)]).mean(0), atol=1e-6)


class Narrow:
    """One action dimension, an odd size."""

    name = "narrow"
    spec = ActionSpec(("x",), "delta", "world", "none", None, 1, (-1.0,), (1.0,), 10.0)

    def __iter__(self) -> Any:
        frames = np.full((3, 33, 35, 3), 90, np.uint8)
        yield Episode("e", "push", "push it", frames, np.float32([[1], [2], [3]]))

    def fingerprint(self) -> str:
        return "narrow"


def test_lerobot_reads_actions_of_one_number(tmp_path: Path, reference: Any) -> None:
    export_lerobot(Narrow(), tmp_path / "made")
    theirs = reference("us/made", root=tmp_path / "made", video_backend="pyav")
    assert [theirs[n]["action"].item() for n in range(3)] == [1, 2, 3]
    (ours,) = open_robots(tmp_path / "made", Skips())
    assert ours.actions.ravel().tolist() == [1, 2, 3] and ours.frames[:].shape == (3, 32, 34, 3)


@pytest.mark.parametrize("video", [True, False])
def test_we_read_what_lerobot_wrote(tmp_path: Path, reference: Any, video: bool) -> None:
    features = {
        IMAGE: {
            "dtype": "video" if video else "image",
            "shape": (SIDE, SIDE, 3),
            "names": ["height", "width", "channels"],
        },
        "action": {"dtype": "float32", "shape": (2,), "names": list(SPEC.names)},
    }
    made = reference.create("them/made", 10, features, root=tmp_path / "made", use_videos=video)
    for episode in Made(LENGTHS):
        for frame, action in zip(episode.frames, episode.actions, strict=True):
            made.add_frame({IMAGE: frame, "action": action, "task": episode.instruction})
        made.save_episode()
    made.finalize()
    skips = Skips()
    robots = open_robots(tmp_path / "made", skips)
    assert robots.spec.names == SPEC.names and robots.spec.rate == 10
    check(robots)
    assert not skips.rows
