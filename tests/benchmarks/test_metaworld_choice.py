"""Where only words say what is meant: words are held out, scenes show all choices, a wrong touch fails."""

import numpy as np
import pytest

from embodied_midtrain.benchmarks.metaworld import CAMERA
from embodied_midtrain.benchmarks.metaworld_named import MetaWorldNamed
from embodied_midtrain.benchmarks.metaworld_sorting import (
    PADS,
    TAUGHT,
    UNSEEN,
    MetaWorldSorting,
    MetaWorldSortingShuffled,
)
from embodied_midtrain.benchmarks.protocol import evaluation_state, open_benchmark


@pytest.fixture(scope="module")
def sorting():
    simulation = MetaWorldSorting().make("food", 128)
    yield simulation
    simulation.close()


def test_no_word_is_taught_and_held_out_and_all_kinds_have_as_many():
    taught = [set(words.split()) for words in TAUGHT.values()]
    unseen = [set(words.split()) for words in UNSEEN.values()]
    assert len(set.union(*taught, *unseen)) == sum(map(len, [*taught, *unseen])) == 4 * 36
    assert {len(words) for words in taught} == {24} and {len(words) for words in unseen} == {12}
    told = MetaWorldSorting().instructions("food")
    assert len(set(told.training)) == 4 * 24 and len(set(told.held_out)) == 4 * 12
    # A round of as many episodes as there are words names each of them once.
    assert len({text.split()[-1] if "belongs" not in text else text.split()[-2] for text in told.held_out[:12]}) == 12


@pytest.mark.parametrize("name", ["metaworld_sorting", "metaworld_sorting_shuffled", "metaworld_named"])
def test_the_expert_solves_every_task_and_every_choice_is_in_the_picture(name):
    benchmark = open_benchmark(name)
    assert benchmark.name == name
    for task in benchmark.tasks[::5] if len(benchmark.tasks) > 4 else benchmark.tasks:
        simulation = benchmark.make(task, 64)
        for number in range(3):
            simulation.reset(evaluation_state(number))
            seen = CAMERA.project(simulation.tops, (64, 64))
            assert (seen[:, :2] > 1).all() and (seen[:, :2] < 63).all() and (seen[:, 2] > 0).all()
            assert any(simulation.step(simulation.expert()) for _ in range(benchmark.horizon(task)))
        simulation.close()


def test_a_solid_that_was_not_meant_fails_the_episode_for_good(sorting):
    sorting.reset(1)
    away = sorting.tops[2].copy()
    for _ in range(60):
        hand = sorting._hand()
        target = np.array([*away[:2], away[2] + 0.02])
        assert not sorting.step(np.append(np.clip((target - hand) * 25, -1, 1), -1.0).astype(np.float32))
    assert sorting.touched == 2
    assert not any(sorting.step(sorting.expert()) for _ in range(60)), "the right one comes too late"


def test_the_scene_does_not_tell_what_is_asked_for():
    for benchmark in (MetaWorldSorting(), MetaWorldSortingShuffled()):
        frames = []
        for task in PADS:
            simulation = benchmark.make(task, 64)
            simulation.reset(5)
            frames.append(simulation.frame())
            simulation.close()
        assert all((frame == frames[0]).all() for frame in frames[1:])


def test_pads_are_dealt_out_anew_only_where_that_is_wanted():
    def orders(benchmark):
        simulation = benchmark.make("animal", 32)
        found = set()
        for state in range(1, 20, 2):
            simulation.reset(state)
            found.add(tuple(np.argsort(simulation.tops[:, 0]).tolist()))
        simulation.close()
        return found

    assert len(orders(MetaWorldSorting())) == 1
    assert len(orders(MetaWorldSortingShuffled())) > 4


def test_distractors_share_a_word_each_with_what_is_named():
    simulation = MetaWorldNamed().make("red-cube", 32)
    for state in (1, 3, 5):
        simulation.reset(state)
        named, colour, form, neither = simulation.solids
        assert (named.colour, named.form) == ("red", "cube")
        assert colour.colour == "red" and colour.form != "cube"
        assert form.form == "cube" and form.colour != "red"
        assert neither.colour != "red" and neither.form != "cube"
        assert len(set(simulation.solids)) == 4
    simulation.close()
