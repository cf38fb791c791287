"""LIBERO's scenes: upright, settled, fixtures where LIBERO puts them, every answer found again by other means."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("libero")

from rays import Rays
from scene_answers import Witness, wrong

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.sources.asking import Asker
from embodied_midtrain.sources.registry import scenes_libero
from embodied_midtrain.sources.registry.scenes_asking import SIDE
from embodied_midtrain.sources.registry.scenes_libero import SUITE, TABLES, TASKS, LiberoScenes, draw, open_room
from embodied_midtrain.sources.registry.scenes_questions import questions


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", params=["kitchen-5", "living-room-4"])
def room(request, cache):
    room = open_room(request.param, cache)
    yield room
    room.close()


def test_every_answer_is_found_again_by_rays(room):
    asker, faults, asked_in_all = Asker(np.random.default_rng(1)), [], 0
    (table,) = (name for name in TABLES if name in room.geoms)
    for state in range(6):
        scene = draw(room, state, seed=2)
        witness = Witness(scene, Rays(room.model, room.data, scene.camera, SIDE), room.geoms, table)
        for asked, phrasing in asker.pick(questions(scene), 8):
            asked_in_all += 1
            if fault := wrong(asked, phrasing, witness):
                faults.append((scene.id, phrasing, asked.answer, fault))
    assert not faults
    assert asked_in_all >= 40


def test_the_arm_hangs_from_above_and_things_have_come_to_rest(room):
    scene = draw(room, 3, seed=0)
    assert scene.gripper is not None and scene.table is not None
    assert scene.gripper.centre[2] > max(thing.centre[2] for thing in scene.things if thing.entry.grip)
    # Objects that nothing holds fall 5 cm in a tenth of a second.
    assert np.abs(room.data.qvel).max() < 0.1
    rows = np.nonzero(scene.table)[0]
    assert rows.mean() > SIDE / 3, "the table is in the lower part of an upright picture"


def test_fixtures_stand_where_libero_puts_them(cache):
    room = open_room("kitchen-7", cache)
    scene = draw(room, 0, seed=0)
    room.close()
    bowl = next(thing for thing in scene.things if thing.name == "white bowl")
    microwave = next(thing for thing in scene.things if thing.name == "microwave")
    # The task's description says (On white_bowl_1 microwave_1_top_side).
    assert np.all(microwave.low[:2] < bowl.centre[:2]) and np.all(bowl.centre[:2] < microwave.high[:2])
    assert abs(bowl.low[2] - microwave.high[2]) < 0.02


def test_same_seed_same_bytes(cache, monkeypatch):
    monkeypatch.setattr(scenes_libero, "TASKS", {name: TASKS[name] for name in ("kitchen-1", "study-3")})

    def drawn(seed):
        made = LiberoScenes().samples(cache, 12, seed, Skips())
        return [(sample.id, sample.turns, sample.pictures[0].read()) for sample in made]

    first, other = drawn(3), drawn(4)
    assert first == drawn(3)
    assert len(first) == 12 == len({sample[0] for sample in first})
    assert {sample[2] for sample in first}.isdisjoint(sample[2] for sample in other)


def test_a_room_that_cannot_be_built_is_a_listed_skip(cache, monkeypatch):
    monkeypatch.setattr(scenes_libero, "TASKS", {"gone": "NO_SUCH_TASK", "kitchen-1": TASKS["kitchen-1"]})
    skips = Skips()
    assert len(list(LiberoScenes().samples(cache, 4, 0, skips))) == 4
    assert [(row["reason"], row["where"]) for row in skips.rows] == [("scene not built", "gone")]


def test_no_scene_of_an_evaluation_suite_is_in_the_pool():
    """LIBERO-10 shares scenes with LIBERO-90; spatial, object and goal stand in rooms of their own."""
    from libero.libero import get_libero_path

    def rooms(paths):
        return {re.search(r"\(problem (\w+)\)", path.read_text())[1] for path in paths}

    def scenes(names):
        return {re.match(r"(\w+?_SCENE\d+)_", name)[1] for name in names}

    suites = Path(get_libero_path("bddl_files"))
    ours = [suites / SUITE / f"{task}.bddl" for task in TASKS.values()]
    for suite in ("libero_spatial", "libero_object", "libero_goal"):
        evaluated = list((suites / suite).glob("*.bddl"))
        assert len(evaluated) == 10 and not rooms(evaluated) & rooms(ours)
    evaluated = list((suites / "libero_10").glob("*.bddl"))
    assert len(evaluated) == 10
    assert not scenes(path.name for path in evaluated) & scenes(path.name for path in ours)
