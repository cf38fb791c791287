"""EmbodiedMidtrain's recipes as they come with the package, every count scaled by one factor: tiny models of the true
architectures, each source and robot data set in its true format, to a report."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from embodied_midtrain.artifacts import Artifact, StageError, read_json
from embodied_midtrain.proximity.select import read_selection
from embodied_midtrain.recipes.layout import Layout
from embodied_midtrain.recipes.recipe import Recipe, load_recipe
from embodied_midtrain.recipes.run import run_recipe
from embodied_midtrain.recipes.vla_eval import results_of
from embodied_midtrain.report.summary import Summary, load_summary
from tests.recipes import small_data

pytest.importorskip("google_crc32c")
SCALE = 0.0001
PAPER = "embodied_midtrain_internvl3_5_1b"
REAL_BRIDGE = os.environ.get("EMT_BRIDGE")
SOURCES = {"laion-400m", "cc-12m", "llava-665k", "vcr", "refspatial", "embspatial-bench", "robo2vlm", "robopoint"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_data.write_all(tmp_path_factory.mktemp("data"), Path(REAL_BRIDGE) if REAL_BRIDGE else None)


def recipe_of(name: str, data: Path, model: str) -> Recipe:
    """As it is, but for the scale, where the data lie, the model, and a simulator that costs nothing."""
    recipe = load_recipe(name)
    libero = recipe.benchmarks["libero_10"]
    rollout = replace(libero.rollout, benchmark="tests.recipes.small_data:Stage", horizon=12)
    return replace(
        recipe,
        scale=SCALE,
        backbone=str(data / "models" / model),
        data=replace(recipe.data, folder=data),
        benchmarks={**recipe.benchmarks, "libero_10": replace(libero, rollout=rollout)},
    )


@pytest.fixture(scope="module")
def table1(data: Path) -> tuple[Recipe, Path, Summary]:
    recipe = recipe_of(PAPER, data, "internvl")
    return recipe, data / "run", run_recipe(recipe, data / "run")


@pytest.mark.slow
def test_table_1_from_the_pool_to_the_report(table1: tuple[Recipe, Path, Summary]) -> None:
    recipe, out, _ = table1
    found = load_summary(out)
    assert (found.scale, found.state) == (SCALE, "partial"), "two of three benchmarks wait for vla-eval"
    assert found.pool is not None and {s.name for s in found.pool.sources} == SOURCES
    assert found.target is not None and {t.name: t.frames for t in found.target.tasks} == dict.fromkeys(
        recipe.benchmarks, 20
    )
    assert found.selections[0].size == 120 == round(1_200_000 * SCALE)
    assert found.estimator is not None and found.mmd is not None and found.audit is not None
    assert {"target: calvin", "target: bridge", "target: libero_10"} <= set(found.mmd.names)
    # Mid-trained once, fine-tuned for each benchmark with its own chunk.
    layout = Layout(out)
    assert [t.variant for t in found.midtrain] == ["selected"] and len(found.policies) == 6
    for name, own in recipe.benchmarks.items():
        for variant in recipe.variants:
            config = Artifact.open(layout.policy(f"{name}/{variant.name}"), "finetune").manifest["config"]
            assert (config["chunk"], config["executed"], config["steps"]) == (own.chunk, own.executed, 2)
    rows = {b.name: b for b in found.benchmarks}
    assert not rows["libero_10"].waiting and [v.episodes for v in rows["libero_10"].variants] == [2, 2]
    assert len(rows["calvin"].commands) == 4 and rows["calvin"].waiting == ("calvin/off-the-shelf", "calvin/selected")
    assert not found.variants and not found.rollouts
    page = (out / "report" / "report.html").read_text()
    assert "SimplerEnv Bridge" in page and "says nothing about success" in page


def answer_for_vla_eval(out: Path, recipe: Recipe) -> None:
    """Results in the files that vla-eval writes."""
    layout = Layout(out)
    for name, own in recipe.benchmarks.items():
        for number, variant in enumerate(recipe.variants):
            tuning = f"{name}/{variant.name}"
            if own.protocol:
                folder = layout.vla_eval(tuning)
                entries = yaml.safe_load((folder / "protocol.yaml").read_text())["benchmarks"]
                results = results_of(folder, layout.policy(tuning))
                results.mkdir(exist_ok=True)
                for n in range(len(entries)):
                    metrics = {
                        "success": number == 1,
                        **({"completed_subtasks": 2 + number} if name == "calvin" else {}),
                    }
                    episodes = [{"episode_id": 0, "metrics": metrics, "steps": 5}]
                    body = {"tasks": [{"task": f"task{n}", "episodes": episodes}]}
                    (results / f"entry{n}_aggregate.json").write_text(json.dumps(body))


@pytest.mark.slow
def test_the_next_call_reads_what_vla_eval_found(table1: tuple[Recipe, Path, Summary]) -> None:
    recipe, out, _ = table1
    answer_for_vla_eval(out, recipe)
    found = run_recipe(recipe, out)
    assert found.state == "done" and not any(b.waiting or b.commands for b in found.benchmarks)
    rows = {b.name: b for b in found.benchmarks}
    assert [v.length for v in rows["calvin"].variants] == [2.0, 3.0]
    assert [(v.success, v.episodes) for v in rows["bridge"].variants] == [(0.0, 4), (1.0, 4)]
    assert "average length 3.000" in (out / "report" / "report.html").read_text()


@pytest.mark.slow
def test_transfer_takes_the_other_backbones_selection(table1: tuple[Recipe, Path, Summary], data: Path) -> None:
    recipe = replace(recipe_of("embodied_midtrain_qwen3_vl_2b", data, "qwen3_vl"), selection_from=data / "run")
    only = {"libero_10": recipe.benchmarks["libero_10"]}
    found = run_recipe(replace(recipe, benchmarks=only), data / "transfer")
    layout = Layout(data / "transfer", data / "run")
    assert not (data / "transfer" / "select").exists() and not (data / "transfer" / "features").exists()
    trained = Artifact.open(layout.midtrained("selected"), "midtrain")
    chosen = Artifact.open(data / "run" / "select" / "estimator", "select")
    assert trained.manifest["inputs"]["selection"] == chosen.fingerprint and len(read_selection(chosen)) == 120
    assert read_json(layout.midtrained("selected") / "model" / "config.json")["model_type"] == "qwen3_vl"
    assert found.state == "done" and found.estimator is not None and found.selections[0].size == 120
    lacking = replace(recipe, variants=(replace(recipe.variants[1], midtrain_on="text"),))
    with pytest.raises(StageError, match="has no selection by text; it has selections by: estimator"):
        run_recipe(lacking, data / "lacking")


@pytest.mark.slow
def test_table_2_ranks_by_five_measures_and_selects_with_another_backbone(data: Path) -> None:
    recipe = recipe_of("embodied_midtrain_ablation", data, "internvl")
    recipe = replace(recipe, select_with=str(data / "models/qwen3_vl"))
    names: Sequence[str] = [variant.midtrain_on for variant in recipe.variants]
    assert names == ["random", "mean-distance", "perplexity", "delta-perplexity", "estimator"]
    found = run_recipe(recipe, data / "ablation", until="midtrain selected")
    layout = Layout(data / "ablation")
    facts = Artifact.open(layout.features("pool"), "embed").manifest["inputs"]
    before = Artifact.open(layout.scores("before"), "score").manifest["inputs"]
    assert facts["backbone"] == before["backbone"] and "qwen3_vl" in json.dumps(
        read_json(layout.robot_tuned / "model/config.json")
    )
    assert {s.variant: s.size for s in found.selections} == {v.name: 120 for v in recipe.variants}
    assert len({tuple(read_selection(Artifact.open(layout.selection(n), "select"))) for n in names}) == 5
    assert len(found.midtrain) == 5 and not found.policies


def test_everything_that_is_missing_is_said_at_once(tmp_path: Path) -> None:
    recipe = replace(load_recipe(PAPER), data=replace(load_recipe(PAPER).data, folder=tmp_path))
    with pytest.raises(StageError) as error:
        run_recipe(recipe, tmp_path / "run")
    text = str(error.value)
    assert (
        "8 of 8 sources cannot be read" in text and "huggingface.co/datasets/JingkunAn/RefSpatial (Apache-2.0)" in text
    )
    assert all(f"benchmarks.{name}: there is no robot data at" in text for name in recipe.benchmarks)
    assert "CALVIN ABC-D is to be had from" in text and not (tmp_path / "run" / "summary.json").exists()


def test_data_whose_actions_are_not_the_benchmarks_are_refused_before_any_work(tmp_path: Path) -> None:
    small_data.write_all(tmp_path)
    recipe = recipe_of(PAPER, tmp_path, "internvl")
    wrong = {"libero_10": replace(recipe.benchmarks["libero_10"], target=Path("bridge_dataset/1.0.0"))}
    with pytest.raises(StageError, match=r"stage and libero_10 .bridge_dataset. do not mean the same by an action"):
        run_recipe(replace(recipe, benchmarks=wrong), tmp_path / "run")
    plain = {"calvin": replace(recipe.benchmarks["calvin"], convert=False)}
    with pytest.raises(StageError, match="--convert converts them"):
        run_recipe(replace(recipe, benchmarks=plain), tmp_path / "run")
