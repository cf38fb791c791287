"""Several policies on the same episodes: what is compared, what is refused, what is printed."""

from dataclasses import replace

import pytest

from embodied_midtrain.artifacts import StageError, read_json, write_json
from embodied_midtrain.benchmarks import comparison
from embodied_midtrain.benchmarks.comparison import COMPARISON, compare_command, compare_rollouts, play_command
from embodied_midtrain.benchmarks.rollout import EPISODES, RolloutConfig, rollout
from tests.benchmarks.fake_world import PixelActor

FAKE = RolloutConfig(tasks=("slide",), episodes=8, group=8, videos=0, benchmark="tests.benchmarks.fake_world:FakeWorld")


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    root = tmp_path_factory.mktemp("played")
    return {
        "good": rollout(root / "good", FAKE, PixelActor()),
        "bad": rollout(root / "bad", FAKE, PixelActor(wrong_way=True)),
    }


def test_each_is_compared_with_the_first_on_pairs(played):
    found = compare_rollouts(played)
    assert found["policies"]["good"]["all"]["successes"] == 8 and found["policies"]["bad"]["all"]["successes"] == 0
    (row,) = found["comparisons"]
    assert (row["policy"], row["against"], row["pairs"], row["difference"]) == ("bad", "good", 8, -1.0)
    assert row["outcome"] == "worse" and row["p"] == pytest.approx(2 / 2**8)


def test_only_shared_episodes_count(played, tmp_path):
    fewer = rollout(tmp_path, replace(FAKE, episodes=3), PixelActor())
    (row,) = compare_rollouts({"good": played["good"], "fewer": fewer})["comparisons"]
    assert row["pairs"] == 3 and row["outcome"] == "cannot tell"


def test_rollouts_that_cannot_be_compared_are_refused(played, tmp_path):
    shorter = rollout(tmp_path / "shorter", replace(FAKE, horizon=10), PixelActor())
    with pytest.raises(StageError, match="different horizon: 0 and 10"):
        compare_rollouts({"good": played["good"], "shorter": shorter})
    other = rollout(tmp_path / "other", replace(FAKE, tasks=("raises",)), PixelActor())
    with pytest.raises(StageError, match="no episode in common"):
        compare_rollouts({"good": played["good"], "other": other})
    moved = rollout(tmp_path / "moved", FAKE, PixelActor())
    rows = read_json(moved.file(EPISODES))
    write_json(moved.file(EPISODES), [{**row, "start": "ff" + row["start"][2:]} for row in rows])
    with pytest.raises(StageError, match="did not begin slide"):
        compare_rollouts({"good": played["good"], "moved": moved})
    with pytest.raises(StageError, match="at least two"):
        compare_rollouts({"good": played["good"]})


def test_the_commands_print_a_table_and_write_json(played, tmp_path, capsys, monkeypatch):
    folders = tuple(artifact.path for artifact in played.values())
    compare_command(folders, out=tmp_path / "found.json")
    printed = capsys.readouterr().out
    assert "8 of 8, 100%" in printed and "-100 points" in printed and "bad is worse than good" in printed
    assert read_json(tmp_path / "found.json")["comparisons"][0]["pairs"] == 8
    actors = {"runs/a/policy": PixelActor(), "runs/b/policy": PixelActor(wrong_way=True)}
    monkeypatch.setattr(comparison, "open_actor", lambda policy, config: actors[policy])
    play_command(tuple(actors), tmp_path / "out", replace(FAKE, episodes=2))
    assert "too few episodes" in capsys.readouterr().out
    assert list(read_json(tmp_path / "out" / COMPARISON)["policies"]) == ["a-policy", "b-policy"]
    with pytest.raises(ValueError, match="named twice"):
        play_command(("runs/a/policy", "runs/a/policy"), tmp_path / "twice", FAKE)
