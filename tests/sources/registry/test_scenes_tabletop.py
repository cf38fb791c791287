"""Tabletop scenes: every answer found again by other means, the same bytes for the same seed, no arm, no GL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("libero")

from rays import Rays
from scene_answers import Witness, spoilt, wrong
from scipy.spatial import cKDTree

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.samples import Sample
from embodied_midtrain.sources.asking import Asker
from embodied_midtrain.sources.registry.scenes_asking import SIDE
from embodied_midtrain.sources.registry.scenes_questions import questions
from embodied_midtrain.sources.registry.scenes_tabletop import TabletopScenes, TabletopStage


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def stage(cache):
    stage = TabletopStage(cache)
    yield stage
    stage.close()


def _witness(stage, scene):
    geoms = {**stage.geoms, "": [stage.model.geom("table").id]}
    return Witness(scene, Rays(stage.model, stage.data, scene.camera, SIDE), geoms, table="")


def test_every_answer_is_found_again_by_rays(stage):
    asker, kinds, noticed, faults = Asker(np.random.default_rng(5)), Counter(), Counter(), []
    for number in range(30):
        scene = stage.scene(11, number)
        witness = _witness(stage, scene)
        for asked, phrasing in asker.pick(questions(scene), 4):
            kinds[asked.kind] += 1
            if fault := wrong(asked, phrasing, witness):
                faults.append((scene.id, phrasing, asked.answer, fault))
            if (lie := spoilt(asked, scene)) is not None:
                noticed[bool(wrong(lie, phrasing, witness))] += 1
    assert not faults
    assert sum(kinds.values()) >= 100 and len(kinds) == 15, kinds
    assert noticed[False] == 0 and noticed[True] > 80, "the second opinion tells wrong answers from right ones"


def test_all_that_could_be_asked_holds_in_every_phrasing(stage):
    faults, asked = [], 0
    for number in range(2):
        scene = stage.scene(12, number)
        witness = _witness(stage, scene)
        for question in questions(scene):
            for phrasing in question.phrasings:
                asked += 1
                if fault := wrong(question, phrasing, witness):
                    faults.append((scene.id, phrasing, question.answer, fault))
    assert not faults
    assert asked > 100


def test_a_ball_is_where_its_centre_is_projected(stage):
    """State and segmentation agree within two pixels."""
    measured = 0
    for number in range(24):
        scene = stage.scene(13, number)
        for thing in scene.clear:
            if thing.entry.kind == "ball" and thing.mask.sum() > 0.97 * scene.outline_area(thing):
                rows, columns = np.nonzero(thing.mask)
                x, y, _ = scene.camera.project(stage.data.geom(thing.body).xpos, scene.size)
                assert abs(columns.mean() + 0.5 - x) < 2 and abs(rows.mean() + 0.5 - y) < 2
                measured += 1
    assert measured >= 4


def test_objects_stand_on_the_table_apart_from_each_other(stage):
    for number in range(10):
        scene = stage.scene(14, number)
        assert 1 <= len(scene.things) <= 6
        for thing in scene.things:
            assert abs(thing.low[2]) < 1e-6, f"the {thing.name} floats or sinks"
        for a in scene.things:
            for b in scene.things:
                if a is not b:
                    gap = cKDTree(a.points[:, :2]).query(b.points[:, :2])[0].min()
                    assert gap > 0.002, f"the {a.name} stands in the {b.name}"


def _bytes(sample: Sample) -> tuple[object, ...]:
    return (sample.id, sample.turns, sample.pictures[0].read(), sample.licence, sample.origin)


def test_same_seed_same_bytes_and_another_seed_others(cache):
    first, again, other = (
        [_bytes(sample) for sample in TabletopScenes().samples(cache, 14, seed, Skips())] for seed in (3, 3, 4)
    )
    assert first == again
    assert len(first) == 14 == len({sample[0] for sample in first})
    assert not {sample[2] for sample in first} & {sample[2] for sample in other}


def test_kinds_and_answers_are_balanced(stage):
    asker, kinds, answers = Asker(np.random.default_rng(0)), Counter(), Counter()
    for number in range(60):
        for asked, _ in asker.pick(questions(stage.scene(0, number)), 4):
            kinds[asked.kind] += 1
            answers[asked.kind, asked.answer] += 1
    assert max(kinds.values()) - min(kinds.values()) <= 6, kinds
    for kind, one, two in (
        ("side-check", "yes", "no"),
        ("depth-check", "yes", "no"),
        ("fits", "yes", "no"),
        ("side-choice", "left", "right"),
        ("depth-choice", "in front", "behind"),
    ):
        assert abs(answers[kind, one] - answers[kind, two]) <= 3, answers


def test_without_rendering_the_source_says_what_to_install(tmp_path: Path):
    code = (
        "import sys, pathlib\n"
        "from embodied_midtrain.artifacts import Skips, StageError\n"
        "from embodied_midtrain.sources.registry.scenes_tabletop import TabletopScenes\n"
        "from embodied_midtrain.sources.registry.scenes_libero import LiberoScenes\n"
        "for source in (TabletopScenes(), LiberoScenes()):\n"
        "    try:\n        next(iter(source.samples(pathlib.Path(sys.argv[1]), 4, 0, Skips())))\n"
        "    except StageError as error:\n        print(source.name, error)\n"
    )
    # OSMesa is not installed: for MuJoCo the same as a machine without EGL.
    environment = {**os.environ, "MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "osmesa"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.count("apt-get install libegl1") == 2, done.stdout + done.stderr
    assert "tabletop-scenes" in done.stdout and "libero-scenes" in done.stdout
