from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from embodied_midtrain.artifacts import open_stage, write_json
from embodied_midtrain.benchmarks.rollout import EpisodeResult
from embodied_midtrain.config import ConfigError
from embodied_midtrain.intervals import holm
from embodied_midtrain.policies.finetune import FinetuneConfig
from embodied_midtrain.recipes.benchmarks import RobotBenchmark
from embodied_midtrain.recipes.layout import Layout
from embodied_midtrain.recipes.recipe import Recipe, Variant
from embodied_midtrain.recipes.results import closed_loop as read
from embodied_midtrain.report.summary import BenchmarkResult

RECIPE = Recipe(name="r", finetune=FinetuneConfig(chunk=4, executed=2))


def closed_loop(layout: Layout, recipe: Recipe) -> BenchmarkResult:
    """On the recipe's only robot."""
    ((found,), faults) = read(layout, recipe)
    assert faults == ()
    return found


def play(layout: Layout, variant: str, share: float, seed: int = 0, start: str = "") -> None:
    """Rollouts of which about `share` succeed."""
    random = np.random.default_rng(seed)
    episodes = [
        EpisodeResult(
            task,
            n,
            2 * n + 1,
            f"{start}{task}{n}",
            "go",
            bool(random.random() < share),
            50,
            video="v.mp4" if n == 0 else "",
        )
        for task in ("a", "b")
        for n, video in enumerate(["v.mp4", *[""] * 39])
    ]
    with open_stage(layout.rollouts(variant), "rollout", {}, {"policy": variant}) as run:
        write_json(run.file("episodes.json"), [asdict(e) for e in episodes])
        run.finish()


def test_nothing_rolled_out_is_nothing_said(tmp_path: Path) -> None:
    names = ("off-the-shelf", "random", "selected", "scratch")
    assert read(Layout(tmp_path), RECIPE) == ((BenchmarkResult("", waiting=names),), ())


def test_variants_are_compared_on_the_same_episodes(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for variant, share in (("off-the-shelf", 0.5), ("random", 0.5), ("selected", 0.95), ("scratch", 0.05)):
        play(layout, variant, share, seed=len(variant))
    found = closed_loop(layout, RECIPE)
    assert [v.variant for v in found.variants] == ["off-the-shelf", "random", "selected", "scratch"]
    assert all(v.episodes == 80 and v.low < v.success < v.high for v in found.variants)
    assert {(r.variant, r.task) for r in found.rollouts} == {(v.variant, t) for v in found.variants for t in "ab"}
    outcomes = {(c.variant, c.baseline): (c.kind, c.outcome) for c in found.comparisons}
    assert outcomes == {
        ("random", "off-the-shelf"): ("variant", "cannot tell"),
        ("selected", "off-the-shelf"): ("variant", "better"),
        ("selected", "random"): ("variant", "better"),
        ("off-the-shelf", "scratch"): ("initialisation", "better"),
    }
    assert found.videos[0].path == "rollouts/off-the-shelf/v.mp4"


def test_findings_survive_all_comparisons_of_the_recipe(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for variant, share in (("off-the-shelf", 0.5), ("random", 0.5), ("selected", 0.6), ("scratch", 0.05)):
        play(layout, variant, share)
    rows = closed_loop(layout, RECIPE).comparisons
    own = [row for row in rows if row.kind == "variant"]
    assert [row.p_adjusted for row in own] == holm([row.p for row in own]) and rows[-1].p_adjusted is None
    # Alone it would be one: the interval leaves out 0.
    (selected,) = (row for row in own if (row.variant, row.baseline) == ("selected", "off-the-shelf"))
    assert selected.low > 0 and selected.p < 0.05 <= (selected.p_adjusted or 0)
    assert selected.outcome == "cannot tell" and "cannot be told apart" in selected.verdict


def test_several_benchmarks_are_corrected_together(tmp_path: Path) -> None:
    own = RobotBenchmark(target=Path("x"), chunk=4, executed=2)
    recipe = replace(RECIPE, variants=(Variant("one"), Variant("two")), benchmarks={"near": own, "far": own})
    layout = Layout(tmp_path)
    for name in recipe.benchmarks:
        play(layout, f"{name}/one", 0.5)
        play(layout, f"{name}/two", 0.6)
    rows, _ = read(layout, recipe)
    assert [(c.p, c.p_adjusted, c.outcome) for row in rows for c in row.comparisons] == 2 * [
        (0.03125, 0.0625, "cannot tell")
    ]


def test_episodes_that_did_not_begin_alike_are_not_compared(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    play(layout, "off-the-shelf", 0.5)
    play(layout, "random", 0.5, start="other")
    ((found,), (fault,)) = read(layout, RECIPE)
    assert len(found.variants) == 2 and not found.comparisons and "did not begin a (state 1) alike" in fault


def test_a_control_that_does_as_well_is_said_plainly(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    play(layout, "off-the-shelf", 0.6, seed=1)
    play(layout, "scratch", 0.6, seed=2)
    (only,) = closed_loop(layout, RECIPE).comparisons
    assert (only.kind, only.outcome) == ("initialisation", "cannot tell")
    assert "cannot tell initialisations apart" in only.verdict


@pytest.mark.parametrize("names", [("a", "a"), ("a/b",), ()])
def test_variants_that_cannot_be_told_apart(names: tuple[str, ...]) -> None:
    recipe = Recipe(name="r", finetune=FinetuneConfig(chunk=4, executed=2), variants=tuple(map(Variant, names)))
    with pytest.raises(ValueError, match="variant"):
        recipe.check()


def test_training_seeds_are_counted_together_and_shown_apart(tmp_path: Path) -> None:
    recipe = replace(RECIPE, training_seeds=(0, 7), variants=(Variant("one"), Variant("two")))
    assert [t.name for t in recipe.trainings()] == ["one-seed-0", "two-seed-0", "one-seed-7", "two-seed-7"]
    layout = Layout(tmp_path)
    for name, share in (("one-seed-0", 1.0), ("one-seed-7", 0.0), ("two-seed-0", 0.0), ("two-seed-7", 0.0)):
        play(layout, name, share)
    found = closed_loop(layout, recipe)
    assert [(v.success, v.episodes, v.by_seed) for v in found.variants] == [(0.5, 160, (1.0, 0.0)), (0.0, 160, (0, 0))]
    (difference,) = found.comparisons
    # Pairs are of one seed: success with seed 0 is not held against a failure with seed 7.
    assert (difference.difference, difference.by_seed) == (-0.5, (-1.0, 0.0))
    assert {video.path for video in found.videos} == {"rollouts/one-seed-0/v.mp4", "rollouts/two-seed-0/v.mp4"}


def test_training_seeds_must_differ() -> None:
    for seeds in ((), (1, 1)):
        with pytest.raises(ConfigError, match="training_seeds"):
            replace(RECIPE, training_seeds=seeds).check()
