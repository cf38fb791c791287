"""Rollouts on a small world with known outcomes, and with the scripted expert on the real one."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from embodied_midtrain.artifacts import ArtifactMismatch, StageError, read_json
from embodied_midtrain.benchmarks import rollout as module
from embodied_midtrain.benchmarks.actors import ExpertActor, RandomActor
from embodied_midtrain.benchmarks.rollout import RolloutConfig, read_episodes, rollout, rollout_command
from tests.benchmarks.fake_world import CRASHES, SPEC, PixelActor

FAKE = RolloutConfig(tasks=("slide",), episodes=5, group=2, videos=1, benchmark="tests.benchmarks.fake_world:FakeWorld")


def content(artifact):
    return artifact.manifest["files"]


def test_a_policy_that_sees_solves_and_one_that_goes_wrong_does_not(tmp_path):
    good = rollout(tmp_path / "good", FAKE, PixelActor())
    assert good.counts == {"episodes": 5, "successes": 5, "crashed": 0, "skipped": {}}
    episodes = read_episodes(good)
    assert [e.episode for e in episodes] == [0, 1, 2, 3, 4]
    assert [e.state for e in episodes] == [1, 3, 5, 7, 9]
    assert len({e.start for e in episodes}) == 5
    assert {e.instruction for e in episodes} == {"slide to the mark", "bring the light to the mark by slide"}
    assert read_json(good.file("results.json"))["all"]["low"] == pytest.approx(0.5655, abs=1e-4)  # Wilson, 5 of 5.
    bad = rollout(tmp_path / "bad", FAKE, PixelActor(wrong_way=True))
    assert bad.counts["successes"] == 0
    assert [e.steps for e in read_episodes(bad)] == [40] * 5
    assert [(a.start, a.state) for a in read_episodes(bad)] == [(e.start, e.state) for e in episodes]


def test_results_say_what_was_played_and_whether_it_is_enough(tmp_path, capsys, monkeypatch):
    done = rollout(tmp_path / "out", FAKE, PixelActor())
    rows = read_json(done.file("episodes.json"))
    assert pq.read_table(done.file("episodes.parquet")).to_pylist() == rows
    starts = read_json(done.file("starts.json"))
    assert [row["state"] for row in starts["tasks"]["slide"]] == [1, 3, 5, 7, 9]
    assert [row["start"] for row in starts["tasks"]["slide"]] == [row["start"] for row in rows]
    assert read_json(done.file("results.json"))["all"]["note"] == "too few episodes"  # 57 % to 100 %.
    monkeypatch.setattr(module, "open_actor", lambda policy, config: PixelActor())
    rollout_command("pixels", tmp_path / "many", replace(FAKE, episodes=20, tasks=("slide", "hopeless")))
    task, hopeless, both = capsys.readouterr().out.splitlines()
    assert "18 of 20" in task and "0 of 20" in hopeless and "too few" not in task + hopeless
    assert "18 of 40" in both and "too few" not in both


def test_steps_end_with_the_one_that_solves(tmp_path):
    (one,) = read_episodes(rollout(tmp_path, replace(FAKE, episodes=1), PixelActor()))
    at, mark = np.frombuffer(bytes.fromhex(one.start))
    assert one.steps == pytest.approx(abs(at - mark), abs=1.5)


def test_neither_processes_nor_an_interruption_change_the_result(tmp_path, monkeypatch):
    whole = rollout(tmp_path / "whole", FAKE, PixelActor(), processes=2)
    assert content(rollout(tmp_path / "alone", FAKE, PixelActor(), processes=1)) == content(whole)

    play, calls = module._Game.play, itertools.count()

    def interrupted(game):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return play(game)

    monkeypatch.setattr(module._Game, "play", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rollout(tmp_path / "parts", FAKE, PixelActor())
    went_on = rollout(tmp_path / "parts", FAKE, PixelActor())
    assert next(calls) == 4, "the first group was not played again"
    assert content(went_on) == content(whole)


def test_a_finished_rollout_is_left_alone_and_another_policy_refused(tmp_path, monkeypatch):
    rollout(tmp_path, FAKE, PixelActor())
    with pytest.raises(ArtifactMismatch, match="policy"):
        rollout(tmp_path, FAKE, PixelActor(wrong_way=True))
    monkeypatch.setattr(module._Game, "play", lambda game: pytest.fail("played again"))
    assert rollout(tmp_path, FAKE, PixelActor()).counts["successes"] == 5


def test_held_out_wordings_are_others(tmp_path):
    held_out = rollout(tmp_path, replace(FAKE, wording="held-out", episodes=2), PixelActor())
    assert {e.instruction for e in read_episodes(held_out)} == {"go to the mark"}


@pytest.mark.parametrize(
    ("task", "solved", "crashes"), [("dies once", [True] * 3, 1), ("dies", [True, False, True], 2)]
)
def test_a_process_that_dies_is_tried_again_then_its_episodes_fail(tmp_path, monkeypatch, task, solved, crashes):
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv(CRASHES, str(marks))
    # Three processes: each episode of the group has its own, so that only one is lost.
    config = replace(FAKE, tasks=(task,), episodes=3, group=3, videos=0)
    done = rollout(tmp_path / "out", config, PixelActor(), processes=3)
    episodes = read_episodes(done)
    assert [e.success for e in episodes] == solved
    assert len(list(marks.iterdir())) == crashes
    assert done.counts["crashed"] == solved.count(False)
    assert ["exit code 7" in e.error for e in episodes] == [not s for s in solved]


def test_a_simulator_that_raises_fails_its_own_episode_only(tmp_path):
    done = rollout(tmp_path, replace(FAKE, tasks=("raises",), group=5), PixelActor(), processes=1)
    assert [e.success for e in read_episodes(done)] == [True, False, True, True, True]
    assert "the light has gone out" in read_episodes(done)[1].error


def test_starts_that_repeat_are_refused(tmp_path):
    with pytest.raises(StageError, match="repeats: episodes 0 and 1 begin in the same state"):
        rollout(tmp_path, replace(FAKE, tasks=("repeats",)), PixelActor())


def test_a_policy_for_another_robot_is_refused_before_anything_is_played(tmp_path):
    other = replace(SPEC, gripper_closed=-1)
    with pytest.raises(StageError, match="gripper_closed: 1 against -1"):
        rollout(tmp_path / "out", FAKE, PixelActor(spec=other))
    assert not (tmp_path / "out").exists()


@dataclass(frozen=True)
class BrokenActor(PixelActor):
    answer: str = "nan"

    def act(self, frames, instructions):
        actions = super().act(frames, instructions)
        return actions * np.nan if self.answer == "nan" else actions[:, :2]


@pytest.mark.parametrize(("answer", "words"), [("nan", "no numbers"), ("short", "shape")])
def test_broken_answers_of_a_policy_are_named(tmp_path, answer, words):
    with pytest.raises(StageError, match=words):
        rollout(tmp_path, FAKE, BrokenActor(answer=answer))


def test_wrong_settings_are_explained(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'slide'"):
        rollout(tmp_path, replace(FAKE, tasks=("slidr",)), PixelActor())
    with pytest.raises(ValueError, match="executes 9 of 6"):
        rollout(tmp_path, FAKE, PixelActor(executed=9))
    with pytest.raises(ValueError, match="at least 1"):
        rollout(tmp_path, replace(FAKE, episodes=0), PixelActor())


def test_the_expert_solves_the_real_benchmark_and_chance_does_not(tmp_path):
    pytest.importorskip("metaworld")
    config = RolloutConfig(tasks=("reach-v3", "drawer-open-v3"), episodes=3, group=3, videos=1)
    rollout_command("expert", tmp_path / "expert", config)
    rows = read_json(tmp_path / "expert" / "episodes.json")
    assert sum(row["success"] for row in rows) == 6
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "expert" / "videos" / "reach-v3-000.mp4")) as video:
        assert video.streams.video[0].codec_context.name == "h264"
        shown = sum(1 for _ in video.decode(video=0))
    # A look before the first step, and one after every five.
    assert shown == 1 + -(-rows[0]["steps"] // ExpertActor(SPEC).executed)
    rollout_command("random", tmp_path / "random", replace(config, tasks=("reach-v3",), horizon=50))
    assert read_json(tmp_path / "random" / "results.json")["all"]["successes"] == 0


def test_chance_is_the_same_chance_again():
    frames = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    one, again = (RandomActor(SPEC).act(frames, ["", ""]) for _ in range(2))
    assert one.shape == (2, 10, 2) and (one == again).all() and (one[0] != one[1]).any()


def test_given_states_go_round_with_another_wording_in_every_round(tmp_path):
    config = replace(FAKE, states=(4, 0), episodes=4)
    episodes = read_episodes(rollout(tmp_path, config, PixelActor()))
    assert [e.state for e in episodes] == [4, 0, 4, 0]
    assert episodes[0].start == episodes[2].start != episodes[1].start
    assert episodes[0].instruction == episodes[1].instruction != episodes[2].instruction
    for wrong in ((1, 1), (-1,)):
        with pytest.raises(ValueError, match="different numbers"):
            replace(FAKE, states=wrong).check()
