import pytest

from embodied_midtrain.artifacts import PARTS, open_stage
from embodied_midtrain.midtraining.mixture import Budget, Mixture, prepare
from tests.midtraining.small_pool import samples
from tests.tiny import backbone


def mixture(folder, weights, times=1) -> Mixture:
    """Of the twelve samples (each named so many times), in parts of two."""
    by_key = {sample.key: sample for sample in samples()}
    budget = Budget(steps=4, batch=3, seed=0, weights=weights, repeats=True)
    with open_stage(folder, "midtrain", {}, {}) as run:
        return prepare(
            run,
            list(by_key) * times,
            lambda keys: (by_key[key] for key in keys),
            backbone("compact"),
            budget,
            keep_vision=False,
            part_size=2,
        )


@pytest.mark.parametrize("weights", [{}, {"books": 1.0, "charts": 2.0}], ids=["as selected", "weighted"])
def test_gaps_between_finished_parts_are_filled_with_their_own_samples(tmp_path, weights):
    whole = mixture(tmp_path, weights)
    # As a team leaves them that was killed, and goes on with another number of processes.
    for number in (1, 3):
        (tmp_path / PARTS / f"rows-{number:05d}.json").unlink()
    again = mixture(tmp_path, weights)
    assert again.keys == whole.keys and (again.lengths == whole.lengths).all()
    assert len(set(again.keys)) == len(again.keys) == 12


def test_no_more_is_rendered_than_the_budget_needs(tmp_path):
    some = mixture(tmp_path, {"books": 1.0, "charts": 0.5})
    # Eight draws of four books, four of eight charts.
    assert sorted(source for source, _ in some.keys) == ["books"] * 4 + ["charts"] * 4
    assert len(list((tmp_path / PARTS).glob("rows-*.json"))) == 4


def test_repeats_that_a_composition_brings_are_counted(tmp_path):
    composed = mixture(tmp_path, {}, times=2)
    different = {composed.keys[place] for place in composed.steps.ravel().tolist()}
    repeated = sum(row["repeated"] for row in composed.composition().values())
    assert repeated == composed.steps.size - len(different) > 0
