"""CALVIN: npz steps and annotations as its own recorder writes them; a pickle that names code is refused."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied_midtrain.artifacts import Skips, StageError
from embodied_midtrain.robots.opening import open_robots


def split(root: Path, stretches: list[tuple[int, int]]) -> Path:
    root.mkdir(parents=True)
    for n in range(20):
        np.savez(
            root / f"episode_{n:07d}.npz",
            rgb_static=np.full((8, 10, 3), n, np.uint8),
            rgb_gripper=np.full((4, 4, 3), 100 + n, np.uint8),
            rel_actions=np.full(7, n / 100),
        )
    notes = {
        "language": {"ann": [f"turn it {n}" for n in range(len(stretches))], "task": ["turn"] * len(stretches)},
        "info": {"indx": stretches, "episodes": []},
    }
    (root / "lang_annotations").mkdir()
    np.save(root / "lang_annotations/auto_lang_ann.npy", notes)  # type: ignore[arg-type]
    return root


def test_annotated_stretches_are_episodes(tmp_path: Path) -> None:
    robots = open_robots(split(tmp_path / "training", [(2, 5), (10, 12)]), Skips())
    first, second = robots
    assert (robots.name, first.task, first.instruction) == ("calvin-training", "turn", "turn it 0")
    assert first.frames.shape == (4, 8, 10, 3) and second.frames[-1][0, 0, 0] == 12
    np.testing.assert_allclose(first.actions[:, 0], [0.02, 0.03, 0.04, 0.05])
    other = open_robots(tmp_path / "training", Skips(), camera="rgb_gripper")
    assert next(iter(other)).frames[0][0, 0, 0] == 102 and other.fingerprint() != robots.fingerprint()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: p.unlink(), "missing step"),
        (lambda p: p.write_bytes(p.read_bytes()[:200]), "broken step"),
        (lambda p: p.write_bytes(b""), "broken step"),
        (lambda p: np.savez(p, rgb_static=np.zeros((8, 10, 3), np.uint8)), "missing key"),
        (lambda p: np.savez(p, rel_actions=np.array([{"a": 1}], object)), "broken step"),
        (lambda p: np.savez(p, rgb_static=np.zeros((8, 10, 3), np.uint8), rel_actions=np.zeros(6)), "bad actions"),
    ],
)
def test_a_damaged_step_costs_its_stretch(tmp_path: Path, damage: Any, reason: str) -> None:
    root = split(tmp_path / "training", [(2, 5), (10, 12), (7, 3)])
    damage(root / "episode_0000004.npz")
    skips = Skips()
    assert [e.instruction for e in open_robots(root, skips)] == ["turn it 1"]
    assert skips.counts() == dict(sorted({reason: 1, "empty": 1}.items()))


def test_a_pickle_that_names_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    root = split(tmp_path / "training", [(2, 5)])
    path = root / "lang_annotations/auto_lang_ann.npy"
    for content in (Evil(), {"language": Evil()}):
        np.save(path, np.array(content, object), allow_pickle=True)
        with pytest.raises(StageError, match="not what CALVIN writes"):
            open_robots(root, Skips())
    path.write_bytes(pickle.dumps({}))
    with pytest.raises(StageError, match="not what CALVIN writes"):
        open_robots(root, Skips())
    assert not (tmp_path / "ran").exists()
