"""Spatial, Grounding and Camera Prediction on scenes without a robot: every answer found again by rays."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("libero")

from embodied_midtrain.capabilities import camera
from embodied_midtrain.capabilities.domains import DOMAINS
from embodied_midtrain.capabilities.posing import Ledger, Tabletop, from_scenes, from_views
from embodied_midtrain.capabilities.splits import split_of
from tests.capabilities.scene_witness import spoilt_camera, spoilt_scene, witness, wrong_camera, wrong_scene


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = Tabletop(tmp_path_factory.mktemp("cache"), 5, "train")
    yield world
    world.close()


@pytest.mark.parametrize("domain", ["spatial", "grounding"])
def test_every_answer_is_found_again_by_rays(domain, world):
    ledger = Ledger()
    samples = list(from_scenes(world, 0, {domain: 100}, ledger))
    assert len(samples) == 100 == len({sample.id for sample in samples})
    assert {row["kind"] for row in ledger.rows} == set(DOMAINS[domain].scene_kinds)
    faults, told = [], {True: [], False: []}
    for name in dict.fromkeys(row["episode"] for row in ledger.rows):
        seen = witness(world.stage, name)
        for row in (row for row in ledger.rows if row["episode"] == name):
            if fault := wrong_scene(row, seen):
                faults.append((row["id"], row["question"], row["answer"], fault))
            if (lie := spoilt_scene(row, seen)) is not None:
                told[bool(wrong_scene(lie, seen))].append((lie["question"], lie["answer"]))
    assert not faults
    assert not told[False] and len(told[True]) > 60, "the second opinion tells wrong answers from right ones"


def test_cameras_are_those_that_mujoco_draws_with(world):
    ledger = Ledger()
    samples = list(from_views(world, 0, {"camera": 160}, ledger))
    assert len(samples) == 160 == len({sample.id for sample in samples})
    assert {row["kind"] for row in ledger.rows} == set(camera.KINDS)
    assert all(len(s.pictures) == len(row["views"]) for s, row in zip(samples, ledger.rows, strict=True))
    faults = [(row["id"], row["question"], wrong_camera(row, world.stage)) for row in ledger.rows]
    assert not [fault for fault in faults if fault[2]]
    assert all(wrong_camera(spoilt_camera(row), world.stage) for row in ledger.rows)


def test_one_thing_changes_or_several():
    rng = np.random.default_rng(0)
    pairs = [camera.draw_pair(rng) for _ in range(600)]
    counts = Counter(pair.change for pair in pairs)
    assert set(counts) == {*camera.CHANGES, ""} and 120 < counts[""] < 240
    assert min(counts[change] for change in camera.CHANGES) > 25
    for pair in pairs:
        differ = [
            name
            for name in ("lookat", "distance", "azimuth", "elevation", "fovy")
            if getattr(pair.first, name) != getattr(pair.second, name)
        ]
        assert len(differ) == 1 if pair.change else len(differ) >= 2
        for one in (pair.first, pair.second):
            assert camera.LEVELS[0] - 1e-9 <= one.elevation <= camera.LEVELS[1] + 1e-9 and 25 < one.fovy < 80


@pytest.mark.parametrize(("value", "said"), [(44.0, 45), (52.0, None), (53.5, None), (55.0, 60)])
def test_near_where_rounding_changes_nothing_is_said(value, said):
    assert camera.rounded(value, 15) == said


def test_held_out_scenes_are_others(world):
    train = {name for _, name in world.numbers(0)}
    held_out = {name for _, name in Tabletop(world.cache, world.seed, "held-out").numbers(0)}
    assert not train & held_out and len(train | held_out) == 1000 and 150 < len(held_out) < 250
    assert {split_of(name) for name in train} == {"train"}
