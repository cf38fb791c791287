"""A whole recipe on a tiny random SmolVLM (Idefics3), uninterrupted and killed once in every stage."""

import json
import multiprocessing
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from embodied_midtrain.artifacts import ArtifactMismatch
from embodied_midtrain.recipes.layout import Layout
from embodied_midtrain.recipes.recipe import Recipe, load_recipe
from embodied_midtrain.recipes.run import run_recipe
from embodied_midtrain.report.summary import load_summary
from tests import tiny
from tools.kill_run import differences, stage_at_work

pytestmark = pytest.mark.slow

VARIANTS = [
    {"name": "off-the-shelf", "title": "off the shelf"},
    {"name": "selected", "title": "mid-trained on selected", "midtrain_on": "estimator"},
    {"name": "scratch", "random_language": True},
]


def recipe_file(folder: Path) -> Path:
    shared: dict[str, Any] = {"batch": 4, "micro_batch": 2, "precision": "fp32"}
    values = {
        "name": "tiny",
        "backbone": str(tiny.folder("smolvlm")),
        "variants": VARIANTS,
        "pool": {"per_source": 12, "sources": ["chart-qa", "handwritten-digits"]},
        "demos": {"tasks": ["reach-v3", "drawer-open-v3"], "episodes": 3, "size": 32},
        "embed": {"frames_per_episode": 4, "part_size": 8, "batch_size": 4},
        "gap": {"map_points": 40},
        "compared": ["matched-random", "ratio", "perplexity", "delta-perplexity", "text", "influence"],
        "robot_text": {"frames_per_episode": 3},
        "score": {"batch_size": 4, "part_size": 8, "influence": {"rank": 2, "frames": 4}},
        "select": {"k": 8, "estimator": {"max_steps": 30}},
        "audit": {"pictures": 20, "frames": 20, "leak_stride": 10, "seeds": 2, "splits": 1},
        "midtrain": {**shared, "steps": 3},
        "finetune": {
            **shared,
            "steps": 3,
            "chunk": 4,
            "executed": 2,
            "mode": "frozen",
            "stride": 10,
            "image": 32,
            "warmup_steps": 1,
        },
        "rollout": {"tasks": ["reach-v3", "drawer-open-v3"], "episodes": 2, "horizon": 6, "group": 2, "videos": 1},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def work(recipe: Recipe, out: Path) -> None:
    run_recipe(recipe, out)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    folder = tmp_path_factory.mktemp("whole")
    recipe = load_recipe(recipe_file(folder))
    run_recipe(recipe, folder / "run", command="emt run tiny.yaml")
    return recipe, folder / "run"


def test_the_summary_holds_what_was_measured(whole: tuple[Recipe, Path]) -> None:
    recipe, out = whole
    found = load_summary(out)
    assert found.state == "done"
    assert found.pool is not None and {s.name: s.samples for s in found.pool.sources} == {
        "chart-qa": 12,
        "handwritten-digits": 12,
    }
    assert found.target is not None and (found.target.episodes, found.target.frames) == (6, 24)
    assert found.estimator is not None and 0 <= found.estimator.validation_accuracy <= 1
    assert (
        found.proximity is not None and len(found.proximity.sources) == len(found.proximity.sources_other_prompt) == 2
    )
    assert found.mmd is not None and {"pool", "target", "chart-qa", "target: reach-v3"} <= set(found.mmd.names)
    assert found.diversity is not None and found.diversity.pool > 0 and set(found.diversity.selections) == {"selected"}
    assert [s.variant for s in found.selections] == ["selected"]
    names = ["estimator", *recipe.compared]
    assert {s.name for s in found.selectors} == set(names) and found.selectors[0].name == "estimator"
    assert found.selectors[0].agreement["estimator"].spearman == pytest.approx(1.0)
    assert all(set(s.agreement) == set(names) and len(s.medians) == 2 for s in found.selectors)
    assert found.selectors[0].agreement["matched-random"].overlap <= 1
    assert sum(share.samples for share in found.selections[0].composition) == 12
    assert {t.variant for t in found.policies} == {v["name"] for v in VARIANTS}
    assert {(r.variant, r.task, r.episodes) for r in found.rollouts} == {
        (v["name"], t, 2) for v in VARIANTS for t in ("reach-v3", "drawer-open-v3")
    }
    assert all(0 <= r.low <= r.successes / r.episodes <= r.high <= 1 for r in found.rollouts)
    assert all(s.state == "done" and s.seconds >= 0 and (s.peak_memory_bytes or 0) > 50_000_000 for s in found.stages)
    assert any(c.kind == "initialisation" for c in found.comparisons)
    assert found.audit is not None and found.audit.verdict and found.audit.leaked == 0
    assert found.audit.pictures == 24 and not found.audit.not_run
    assert (out / "report" / "report.html").stat().st_size > 20_000
    assert set(found.files.artifacts) == {name for name, p in Layout(out).artifacts(recipe).items() if p.exists()}


def test_a_second_call_changes_nothing_and_another_recipe_is_refused(whole: tuple[Recipe, Path]) -> None:
    recipe, out = whole
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.parquet")}
    run_recipe(recipe, out)
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*.parquet")}
    other = load_recipe(recipe_file(out.parent))
    object.__setattr__(other, "seed", 1)
    with pytest.raises(ArtifactMismatch, match="config seed: 0 there, 1 now"):
        run_recipe(other, out)


def test_killed_in_every_stage_it_ends_the_same(whole: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, straight = whole
    out = tmp_path / "run"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["embodied_midtrain.recipes.run", "transformers.models.idefics3.modeling_idefics3"])
    wait, killed = random.Random(0), set[str]()
    for _ in range(60):
        process = context.Process(target=work, args=(recipe, out))
        process.start()
        while process.is_alive():
            stage = stage_at_work(out)
            if stage is not None and stage not in killed:
                time.sleep(wait.uniform(0.0, 1.0))
                if stage_at_work(out) == stage:
                    process.kill()
                    process.join()
                killed.add(stage)
            time.sleep(0.002)
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -9, "it failed by itself"
    assert process.exitcode == 0
    assert len(killed) >= 10
    assert not differences(recipe, straight, out)


def test_what_differs_between_two_runs_is_found(whole: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, straight = whole
    other = tmp_path / "other"
    shutil.copytree(straight, other)
    assert not differences(recipe, straight, other)
    manifest = Layout(other).gap / "manifest.json"
    facts = json.loads(manifest.read_text())
    file = sorted(facts["files"])[0]
    facts["files"][file] = "0" * 64
    manifest.write_text(json.dumps(facts))
    shutil.rmtree(Layout(other).rollouts("scratch"))
    found = differences(recipe, straight, other)
    assert f"gap/{file}" in found and any("one of the runs only" in line for line in found)
