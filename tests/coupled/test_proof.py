"""A simulator's own episode, through the demonstrations' file, against MuJoCo's own renderer and cameras."""

import copy
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.benchmarks.demos import DemosConfig, record_demos
from embodied_midtrain.coupled.couple import CoupleConfig, couple, read_facts
from embodied_midtrain.coupled.opening import Traces, open_traces
from embodied_midtrain.coupled.projection import CLOSE, finger_fit
from embodied_midtrain.coupled.questions import CATEGORY
from embodied_midtrain.coupled.recording import recorded_traces
from embodied_midtrain.episodes import BadEpisode
from embodied_midtrain.robots.opening import open_robots
from tests.benchmarks.fake_world import FakeWorld
from tools.check_coupled import play
from tools.coupled_answers import found_again

pytest.importorskip("metaworld")


@pytest.fixture(scope="module")
def episode(tmp_path_factory):
    folder = tmp_path_factory.mktemp("played")
    path, (played,) = play("metaworld/pick-place-v3", 1, 96, 12, folder)
    (trace,) = recorded_traces([path], Skips())
    traces = Traces("played", "played", 1, Skips(), lambda: recorded_traces([path], Skips()))
    couple(folder / "pool", CoupleConfig(looks_per_episode=99, questions_per_look=len(CATEGORY)), episodes=traces)
    return path, trace, played, list(read_facts(folder / "pool"))


def test_the_projected_gripper_is_where_it_is_drawn(episode):
    _, trace, played, _ = episode
    for view in trace.views:
        fit = finger_fit(trace, view)
        assert len(fit.offsets) >= 4 and max(fit.offsets) <= CLOSE, view.name
        for look, fact in enumerate(played.facts):
            seen = view.cameras[look].project(trace.place[trace.looks[look]])[:2] / view.size[0]
            assert np.linalg.norm(seen - fact.ball[view.name]) <= CLOSE


def test_answers_are_found_again(episode):
    _, _, played, rows = episode
    assert len({row["kind"] for row in rows}) >= 15
    assert [row["id"] for row in rows if found_again(row, played)] == []


def test_wrong_answers_are_noticed(episode):
    _, _, played, rows = episode
    opposite = {"yes": "no", "no": "yes", "left": "right", "right": "left", "up": "down", "down": "up"}
    noticed = 0
    for row in rows:
        wrong = copy.deepcopy(row)
        if row["shown"]:
            wrong["shown"] = [[min(value + 0.03, 1.0) for value in region] for region in row["shown"]]
        elif row["answer"] in opposite:
            wrong["answer"] = opposite[row["answer"]]
        else:
            continue
        noticed += 1
        assert found_again(wrong, played), wrong
    assert noticed >= 20


def test_demonstrations_with_truth_are_still_demonstrations(episode):
    path, trace, _, _ = episode
    (found,) = open_robots(path, Skips())
    assert np.array_equal(found.frames[:][trace.looks], trace.view("agent").frames[:])
    assert found.instruction == trace.instruction and len(trace.place) == len(found.actions)


def test_a_damaged_picture_says_so(episode, tmp_path):
    path = shutil.copy(episode[0], tmp_path)
    with h5py.File(path, "r+") as file:
        file["data/demo_0/truth/views/wrist/frames"].id.write_direct_chunk((1, 0, 0, 0), b"no picture")
    (trace,) = recorded_traces([Path(path)], Skips())
    frames = trace.view("wrist").frames
    assert frames[0].any()
    with pytest.raises(BadEpisode, match="damaged truth"):
        frames[1]


def test_demos_record_truth_when_asked(tmp_path):
    config = DemosConfig(tasks=("reach-v3",), episodes=1, size=48, truth_every=20)
    record_demos(tmp_path / "told", config, processes=1)
    (trace,) = open_traces(tmp_path / "told")
    assert trace.looks.tolist() == list(range(0, len(trace.place), 20))
    assert [thing.name for thing in trace.things.named] == ["red cylinder", "red ball"]
    record_demos(tmp_path / "untold", DemosConfig(tasks=("reach-v3",), episodes=1, size=48), processes=1)
    untold = open_traces(tmp_path / "untold")
    assert list(untold) == [] and untold.skips.counts() == {"no truth": 1}


def test_a_world_without_truth_says_so(tmp_path):
    from embodied_midtrain.artifacts import StageError

    config = DemosConfig(benchmark=f"{FakeWorld.__module__}:FakeWorld", tasks=("slide",), episodes=1, truth_every=5)
    with pytest.raises(StageError, match="truth-every"):
        record_demos(tmp_path / "out", config, processes=1)
