from dataclasses import replace

import pytest

from embodied_midtrain.config import ConfigError
from embodied_midtrain.policies.settings import FinetuneConfig
from embodied_midtrain.recipes.recipe import load_recipe, named_recipes
from embodied_midtrain.recipes.scaling import scaled, scaled_config

PAPERS = [name for name in named_recipes() if name.startswith("embodied_midtrain")]


def test_every_count_and_nothing_else() -> None:
    recipe = load_recipe("embodied_midtrain_internvl3_5_1b")
    assert scaled(recipe) is recipe
    tenth = scaled(replace(recipe, scale=0.1))
    assert (tenth.select.k, tenth.midtrain.steps, tenth.midtrain.batch, tenth.midtrain.micro_batch) == (
        120_000,
        500,
        26,
        3,
    )
    assert (tenth.finetune.steps, tenth.finetune.warmup_steps, tenth.target_frames) == (1600, 50, 250)
    assert tenth.benchmarks["libero_10"].rollout.episodes == 5 and tenth.scale == 1.0
    assert tenth.midtrain.lr == recipe.midtrain.lr and tenth.benchmarks["calvin"].chunk == 10
    assert tenth.audit == recipe.audit and tenth.gap == recipe.gap and tenth.embed == recipe.embed


def test_milestones_stay_within_the_steps() -> None:
    tune = FinetuneConfig(chunk=4, executed=2, steps=1000, milestones=(100, 500))
    for factor, steps, milestones in ((0.1, 100, (10, 50)), (0.002, 2, (1,)), (2.0, 2000, (200, 1000))):
        small = scaled_config("finetune", tune, factor)
        small.check()
        assert (small.steps, small.milestones) == (steps, milestones)


@pytest.mark.parametrize("name", named_recipes())
def test_the_smallest_scale_can_still_be_meant(name: str) -> None:
    least = scaled(replace(load_recipe(name), scale=1e-9))
    least.check()
    assert (least.midtrain.steps, least.midtrain.batch, least.finetune.micro_batch) == (2, 4, 2)
    assert least.finetune.warmup_steps == 0 and least.target_frames in (None, 20)


@pytest.mark.parametrize("name", PAPERS)
def test_tables_3_and_4_stand_in_the_papers_recipes(name: str) -> None:
    recipe = load_recipe(name)
    mid, tune = recipe.midtrain, recipe.finetune
    assert (mid.steps, mid.batch, mid.lr, mid.warmup_ratio, mid.max_tokens) == (5000, 256, 5e-5, 0.1, 1024)
    assert (tune.steps, tune.batch, tune.lr, tune.warmup_steps, tune.image) == (16000, 256, 5e-5, 500, 224)
    assert {n: (b.chunk, b.executed) for n, b in recipe.benchmarks.items()} == {
        "calvin": (10, 10),
        "bridge": (4, 4),
        "libero_10": (4, 4),
    }
    assert recipe.selection_from is not None or recipe.select.k == 1_200_000


def test_what_does_not_go_together_is_refused() -> None:
    recipe = load_recipe("embodied_midtrain_internvl3_5_1b")
    with pytest.raises(ConfigError, match="above 0"):
        replace(recipe, scale=0.0).check()
    with pytest.raises(ConfigError, match="brings its own pool"):
        replace(recipe, selection_from=recipe.data.folder or "x").check()
    with pytest.raises(ConfigError, match=r"leave data\.target out"):
        replace(recipe, data=replace(recipe.data, target="x")).check()
    with pytest.raises(ConfigError, match="executed is 11"):
        replace(recipe, benchmarks={"a": replace(recipe.benchmarks["calvin"], executed=11)}).check()
    with pytest.raises(ConfigError, match="did you mean 'calvin_abc_d'"):
        replace(recipe, benchmarks={"a": replace(recipe.benchmarks["calvin"], protocol="calvin-abcd")}).check()
