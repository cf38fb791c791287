"""Whole data sets in another convention, in Python and by `emt robots export --action-spec`."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embodied_midtrain.artifacts import Skips, StageError
from embodied_midtrain.cli import main
from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.robots.converted import ConvertedRobots
from embodied_midtrain.robots.opening import open_robots
from tests.robots.test_fixtures import FIXTURES

GIVEN = ActionSpec(
    ("x", "gripper"), "delta", "base", "none", 1, -1, (-math.inf, 0.0), (math.inf, 1.0), 10.0, (0.01, 1.0)
)
WANTED = replace(
    GIVEN,
    names=("gripper", "x"),
    kind="absolute",
    gripper=0,
    gripper_closed=1,
    low=(-1.0, -math.inf),
    high=(1.0, math.inf),
    rate=5.0,
    scale=(1.0, 1.0),
)
STATE = ActionSpec(
    ("x", "b", "c"), "absolute", "base", "none", None, 1, (-math.inf,) * 3, (math.inf,) * 3, 10.0, (1.0,) * 3
)


@pytest.fixture
def given_data(tmp_path: Path) -> Path:
    pytest.importorskip("av")
    shutil.copytree(FIXTURES / "lerobot", tmp_path / "given")
    (tmp_path / "given" / "action_spec.json").write_text(json.dumps(GIVEN.to_json()))
    for name, spec in (("wanted", WANTED), ("state", STATE)):
        (tmp_path / f"{name}.json").write_text(json.dumps(spec.to_json()))
    return tmp_path / "given"


def test_the_command(given_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["robots", "export", "--data", str(given_data), "--action-spec", str(tmp_path / "wanted.json")]
    assert main([*words, "--out", str(tmp_path / "no")]) == 1
    assert "only with the state at each action, and none was given" in capsys.readouterr().err
    words += ["--state", "observation.state", "--state-spec", str(tmp_path / "state.json")]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert "2 episodes, 5 frames" in capsys.readouterr().out
    robots = open_robots(tmp_path / "out", Skips())
    assert robots.spec == WANTED
    first, second = robots
    # x: the state (the step's number) plus a hundredth of the change (the episode's number), at each second step's end.
    # The gripper: 0 to .4 of 1, 0 closed -> 1 closed, -1 open.
    np.testing.assert_allclose(first.actions, [[1 - 2 * 0.1, 1], [1 - 2 * 0.3, 3], [1 - 2 * 0.4, 4]], atol=1e-6)
    np.testing.assert_allclose(second.actions, [[1 - 2 * 0.1, 1.01], [1 - 2 * 0.2, 2.01]], atol=1e-6)
    np.testing.assert_allclose(first.frames[:].mean(axis=(1, 2, 3)), [20, 40, 60], atol=3)
    np.testing.assert_allclose(second.frames[:].mean(axis=(1, 2, 3)), [120, 140], atol=3)


def test_bad_states_cost_their_episode(given_data: Path) -> None:
    skips = Skips()
    inner = open_robots(given_data, skips, state="action")
    with pytest.raises(StageError, match="no episode could be converted"):
        list(ConvertedRobots(inner, WANTED, skips, state_spec=STATE))
    assert skips.counts() == {"bad state": 2}
    skips = Skips()
    with pytest.raises(StageError, match="no episode could be converted"):
        list(ConvertedRobots(open_robots(given_data, skips), WANTED, skips, state_spec=STATE))
    assert skips.counts() == {"missing state": 2}
    with pytest.raises(StageError, match="no state 'pose' among"):
        open_robots(given_data, Skips(), state="pose")


def test_the_fingerprint_follows_both_conventions(given_data: Path) -> None:
    inner = open_robots(given_data, Skips(), state="observation.state")
    one = ConvertedRobots(inner, WANTED, Skips(), state_spec=STATE).fingerprint()
    other = ConvertedRobots(inner, replace(GIVEN, gripper_closed=1), Skips()).fingerprint()
    assert len({one, other, inner.fingerprint()}) == 3


def test_states_of_every_reader(tmp_path: Path) -> None:
    pytest.importorskip("google_crc32c")
    from tests.robots.test_calvin import split
    from tests.robots.test_hdf5 import libero

    rlds = next(iter(open_robots(FIXTURES / "rlds", Skips(), state="state")))
    assert rlds.state is not None and rlds.state[:, 6].tolist() == list(range(len(rlds.actions)))
    with pytest.raises(StageError, match=r"no state 'pose' among its numbers \(state"):
        open_robots(FIXTURES / "rlds", Skips(), state="pose")
    calvin = next(iter(open_robots(split(tmp_path / "training", [(2, 5)]), Skips(), state="rel_actions")))
    assert calvin.state is not None and calvin.state.shape == (4, 7)
    libero(tmp_path / "a.hdf5")
    hdf5 = next(iter(open_robots(tmp_path / "a.hdf5", Skips(), state="ee_pos,ee_pos")))
    assert hdf5.state is not None and hdf5.state.shape == (6, 6)
    skips = Skips()
    with pytest.raises(StageError, match="no frames"):
        list(open_robots(tmp_path / "a.hdf5", skips, state="nothing"))
    assert skips.counts() == {"missing key": 1}
