"""What `emt robots inspect` says, and what it warns of."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.cli import main
from embodied_midtrain.episodes import ActionSpec, Episode
from embodied_midtrain.robots.export import export_lerobot
from embodied_midtrain.robots.inspect import inspect_robots

SPEC = ActionSpec(("x", "y", "gripper"), "delta", "world", "none", 2, 1, (-1.0,) * 3, (1.0,) * 3, 10.0)


class Made:
    name = "made"

    def __init__(self, spec: ActionSpec = SPEC, **changes: Any) -> None:
        self.spec, self.changes = spec, changes

    def __iter__(self) -> Any:
        rng = np.random.default_rng(0)
        for n in range(4):
            actions = rng.uniform(-1, 1, (6, 3)).astype(np.float32)
            frames = rng.integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
            episode = Episode(f"e{n}", "push", "push it", frames, actions)
            yield replace(episode, **{k: v(episode) for k, v in self.changes.items()})

    def fingerprint(self) -> str:
        return "made"


def scaled(factors: list[float]) -> Any:
    return lambda episode: (episode.actions * np.float32(factors)).astype(np.float32)


@pytest.mark.parametrize(
    ("robots", "warning"),
    [
        (Made(), None),
        (Made(actions=scaled([1, 1e-5, 1])), "y hardly moves"),
        (Made(actions=scaled([3, 1, 1])), "x leaves its bounds"),
        (Made(actions=lambda e: np.abs(e.actions)), "gripper is never negative"),
        (Made(ActionSpec.unknown(3, 0.0)), "do not say what their actions mean"),
        (Made(ActionSpec.unknown(3, 0.0)), "rate is not known"),
        (Made(frames=lambda e: np.zeros((6, 32, 32, 3), np.uint8)), "black or of one colour"),
        (Made(frames=lambda e: np.asarray(e.frames)[:, : 32 - 2 * int(e.id[1])]), "4 sizes"),
    ],
)
def test_warnings(robots: Made, warning: str | None) -> None:
    found = inspect_robots(robots, Skips())["warnings"]
    assert (not found) if warning is None else any(warning in text for text in found), found


def test_counts_and_ranges() -> None:
    facts = inspect_robots(Made(), Skips(), limit=3)
    assert (facts["episodes"], facts["frames"], facts["frame_sizes"]) == (3, 18, {"32x32": 3})
    assert facts["instructions"] == {"different": 1, "commonest": ["push it"]}
    row = facts["actions"][0]
    assert row["name"] == "x" and -1 <= row["least"] <= row["q01"] < row["q99"] <= row["most"] <= 1


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_lerobot(Made(), tmp_path / "lerobot")
    assert main(["robots", "inspect", "--data", str(tmp_path / "lerobot"), "--out", str(tmp_path / "f.json")]) == 0
    assert "4 episodes, 24 frames (6 to 6 each), 10 a second" in capsys.readouterr().out
    assert json.loads((tmp_path / "f.json").read_text())["spec"]["gripper"] == 2
    assert main(["robots", "export", "--data", str(tmp_path / "lerobot"), "--out", str(tmp_path / "again")]) == 0
    assert "4 episodes, 24 frames, 1 tasks" in capsys.readouterr().out
    assert main(["robots", "inspect", "--data", str(tmp_path / "nothing")]) == 1
    assert "there is no robot data" in capsys.readouterr().err
