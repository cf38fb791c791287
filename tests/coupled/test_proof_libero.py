"""The same proof on LIBERO, whose pictures are turned and whose wrist camera looks past the fingers."""

import numpy as np
import pytest

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.coupled.couple import CoupleConfig, couple, read_facts
from embodied_midtrain.coupled.opening import Traces
from embodied_midtrain.coupled.projection import CLOSE, finger_fit
from embodied_midtrain.coupled.questions import CATEGORY
from embodied_midtrain.coupled.recording import recorded_traces
from tools.check_coupled import play
from tools.coupled_answers import found_again

pytest.importorskip("libero")
pytestmark = pytest.mark.slow


def test_the_gripper_is_where_it_is_drawn_and_answers_are_found_again(tmp_path):
    from embodied_midtrain.benchmarks.libero_world import close_idle_worlds

    path, (played,) = play("libero_object/0", 1, 96, 15, tmp_path)
    # Before robosuite's own rendering ends EGL for the whole process.
    close_idle_worlds()
    (trace,) = recorded_traces([path], Skips())
    for view in trace.views:
        fit = finger_fit(trace, view)
        assert len(fit.offsets) >= 4 and fit.median <= CLOSE, view.name
        for look, fact in enumerate(played.facts):
            seen = view.cameras[look].project(trace.place[trace.looks[look]])[:2] / view.size[0]
            assert np.linalg.norm(seen - fact.ball[view.name]) <= CLOSE
    traces = Traces("played", "played", 1, Skips(), lambda: recorded_traces([path], Skips()))
    couple(tmp_path / "pool", CoupleConfig(looks_per_episode=99, questions_per_look=len(CATEGORY)), episodes=traces)
    rows = list(read_facts(tmp_path / "pool"))
    assert len({row["kind"] for row in rows}) >= 15
    assert [row["id"] for row in rows if found_again(row, played)] == []
