"""The studies of the package: each is understood, and its graph is what its name says."""

import io
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from embodied_midtrain.config import ConfigError
from embodied_midtrain.studies.calling import House
from embodied_midtrain.studies.graph import Plan, Stage
from embodied_midtrain.studies.outline import outline, print_outline
from embodied_midtrain.studies.plan import plan
from embodied_midtrain.studies.study import load_study, named_studies

NAMES = sorted(named_studies())
DOMAINS = ("spatial", "grounding", "plan", "camera", "egocentric", "temporal", "action")


def made(name: str) -> Plan:
    return plan(load_study(name))


def on_the_way(of: Plan, variant: str) -> list[Stage]:
    """The stages of a variant's first policy that train, from the backbone on."""
    stage, found = next(c.policy for c in of.cells if c.variant == variant), []
    while isinstance(stage, Stage):
        found.append(stage)
        stage = stage.inputs["backbone"]  # type: ignore[assignment]
    return found[::-1]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_understood(name: str) -> None:
    found = made(name)
    study = found.study
    assert study.name == name and study.about and len(found.stages()) == len({s.key for s in found.stages()})
    assert {cell.variant for cell in found.cells} == set(study.variants)
    if name.endswith("_compact"):
        assert study.backbone == "compact" and len(study.training_seeds) >= 3
        assert any(v.random_language for v in study.variants.values()), "no control says whether it can tell them apart"
    else:
        assert f"{name}_compact" in NAMES


@pytest.mark.parametrize("name", ["rethinking_domains_compact", "embodied_midtrain_selectors_compact"])
def test_the_compact_protocol_is_the_sorting_recipes(name: str) -> None:
    from embodied_midtrain.recipes.recipe import load_recipe

    recipe, study = load_recipe("sorting"), made(name)
    cell = next(c for c in study.cells if c.seed == 1)
    own = cell.policy.config
    for one in fields(own):
        if one.name not in ("seed", "chunk", "executed"):
            assert getattr(own, one.name) == getattr(recipe.finetune, one.name), one.name
    assert (own.chunk, own.executed, own.seed) == (recipe.finetune.chunk, recipe.finetune.executed, 1)
    assert cell.rollout is not None
    assert {n: getattr(cell.rollout.config, n) for n in ("tasks", "wording", "episodes", "group")} == {
        n: getattr(recipe.rollout, n) for n in ("tasks", "wording", "episodes", "group")
    }


@pytest.mark.parametrize("scale", ["", "_compact"])
def test_domains_and_compositions_are_the_papers(scale: str) -> None:
    single = made(f"rethinking_domains{scale}")
    # The compact one also has two compositions, and everything by full training.
    by_lora = {*DOMAINS, "G+E", "seven"} if scale else set(DOMAINS)
    wholly = {f"{name}-full" for name in by_lora} if scale else set()
    assert set(single.study.variants) == {"base", *by_lora, *wholly, "scratch"}
    for name in by_lora | wholly:
        trained, policy = on_the_way(single, name)
        assert (trained.name, policy.name) == ("midtrain", "finetune")
        assert trained.config.method == ("full" if name in wholly else "lora")
    together = made(f"rethinking_composition{scale}")
    mixed = {v: on_the_way(together, v)[0].inputs["pool"] for v in set(together.study.variants) - {"base", "scratch"}}
    sizes = {v: len(pool.inputs["pools"]) for v, pool in mixed.items()}  # type: ignore[union-attr,arg-type]
    assert sizes == {"G+E": 2, "G+N": 2, "E+N": 2, "G+E+N": 3, "G+E+S": 3, "G+E+N+S": 4, "seven": 7}
    budgets = {s.config.budget for s in together.stages() if s.name == "compose"}
    assert budgets == ({1920} if scale else {800_000})
    step = next(s for s in together.stages() if s.name == "midtrain")
    assert step.config.steps * step.config.batch == budgets.pop(), "one epoch"
    assert (step.config.method, step.config.lora_rank, step.config.lora_alpha) == ("lora", 16, 32)


@pytest.mark.parametrize("scale", ["", "_compact"])
def test_robot_data_come_alone_jointly_and_after(scale: str) -> None:
    found = made(f"rethinking_robot{scale}")
    ways = {v: [(s.name, "vqa" in s.inputs) for s in on_the_way(found, v)] for v in found.study.variants}
    target = ("finetune", False)
    assert ways["robot"] == [target, target] and ways["robot+G+E"] == [("finetune", True), target]
    assert ways["G+E-robot"] == [("midtrain", False), target, target]
    for variant, way in ways.items():
        policy = next(c.policy for c in found.cells if c.variant == variant)
        assert ("start" in policy.inputs) == (way[-2:] in ([target, target], [("finetune", True), target]))
        if "start" in policy.inputs:
            assert policy.config.start.start_head == "renewed", "another action space, or another mode"


@pytest.mark.parametrize("scale", ["", "_compact"])
def test_three_stages_and_a_share_of_unseen_combinations(scale: str) -> None:
    found = made(f"two_bridges{scale}")
    whole = on_the_way(found, "all")
    assert [(s.name, "vqa" in s.inputs) for s in whole] == [("midtrain", False), ("finetune", True), ("finetune", True)]
    assert whole[0].config.method == "full" and "vision" in whole[0].config.train
    assert all((s.config.joint.vqa_ratio, s.config.joint.vqa_weight) == (0.25, 1.0) for s in whole[1:])
    etc = whole[0].inputs["pool"]
    assert isinstance(etc, Stage) and etc.config.by == "source" and sum(etc.config.weights.values()) == pytest.approx(1)
    ood = on_the_way(found, "all-ood")[-1].inputs["vqa"]
    assert isinstance(ood, Stage) and sorted(ood.config.weights.values()) == [6, 94]
    held = {r.variant for r in found.readings}
    assert "all" in held and "action-only" not in held, "only what had a first stage can hold on to it"
    bases = {r.stage.inputs["base"].config.method for r in found.readings}  # type: ignore[union-attr]
    assert bases == {"full"} and "all-without-first" not in held, "and to nothing else"
    frozen, whole = (on_the_way(found, name)[0].config.train for name in ("first-frozen", "first"))
    assert set(whole) - set(frozen) == {"vision"}
    kinds = {on_the_way(found, v)[-1].inputs["vqa"].key for v in ("scene", "task", "aligned", "third")}  # type: ignore[union-attr]
    assert len(kinds) == 4


def test_the_second_stage_learns_as_the_paper_says() -> None:
    tune = on_the_way(made("two_bridges"), "all")[1].config
    assert (tune.lr, tune.lr * tune.lr_floor, tune.betas) == (2.5e-5, pytest.approx(2.5e-6), (0.9, 0.95))
    assert (tune.steps, tune.warmup_steps, tune.clip, tune.ema, tune.head) == (30_000, 1000, 1.0, 0.99, "fast")


def test_co_training_is_watched_while_it_learns() -> None:
    found = made("two_bridges_course_compact")
    course = {r.variant: r.stage for r in found.readings if r.measure == "course"}
    assert set(course) == {"first", "first-third"} and "vqa" not in course["first"].inputs["trained"].inputs  # type: ignore[union-attr]
    assert "vqa" in course["first-third"].inputs["trained"].inputs  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["policy_aware_compact", "embodied_midtrain_selectors"])
def test_what_was_selected_is_kept_beside_the_actions(name: str) -> None:
    found = made(name)
    for selector in ("selected", "influence"):
        trained, policy = on_the_way(found, f"{selector}-kept")
        kept = policy.inputs["vqa"]
        assert isinstance(kept, Stage) and kept.inputs["selection"] == trained.inputs["selection"]
        assert trained.config.method == "lora", "the drift is held"
    assert found.study.against("influence-kept") in ("selected", "selected-kept")


def test_one_policy_is_played_on_two_benchmarks() -> None:
    counts = Counter(s.name for s in made("two_bridges_compact").only(("action-only",)).stages())
    assert counts["finetune"] == 3 and counts["rollout"] == 6


@pytest.mark.parametrize("scale", ["", "_compact"])
def test_each_backbone_is_tested_against_itself(scale: str) -> None:
    study = load_study(f"embodied_midtrain_transfer{scale}")
    for name, variant in study.variants.items():
        if not variant.random_language:
            assert study.variants[study.against(name)].backbone == variant.backbone


def test_selections_of_a_sweep_and_of_an_ablation() -> None:
    sweep = made("embodied_midtrain_k_compact")
    assert {s.config.k for s in sweep.stages() if s.name == "select"} == {240, 480, 960, 1920}
    found = made("embodied_midtrain_selectors_compact")
    assert {s.config.selector for s in found.stages() if s.name == "select"} == {
        "random",
        "matched-random",
        "mean-distance",
        "perplexity",
        "delta-perplexity",
        "estimator",
        "influence",
    }


def test_the_docs_show_what_a_dry_run_prints(tmp_path: Path) -> None:
    told = io.StringIO()
    whole = made("embodied_midtrain_k_compact")
    print_outline(outline(whole, (), House(tmp_path, tmp_path)), Console(file=told, width=120))
    shown = (Path(__file__).parents[2] / "docs/studies.md").read_text()
    lines = [" ".join(line.replace("│", " ").split()) for line in told.getvalue().splitlines()]
    block = shown[shown.index("embodied_midtrain_k_compact: 10") :].split("```")[0]
    assert [line for line in block.splitlines()[2:] if " ".join(line.split()) not in lines] == []


def test_a_study_extends_another(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        yaml.safe_dump({"extends": "rethinking_strength_compact", "name": "own", "seed": 3, "variants": {"base": {}}})
    )
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"extends": "own.yaml", "settings": {"midtrain": {"lr": 0.5}}}))
    more = load_study(tmp_path / "more.yaml")
    assert (more.name, more.seed, list(more.variants)) == ("own", 3, ["base"])
    assert more.settings["midtrain"]["lr"] == 0.5 and more.settings["midtrain"]["steps"] == 120
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"extends": "more.yaml"}))
    with pytest.raises(ConfigError, match="circle"):
        load_study(tmp_path / "more.yaml")


def test_a_study_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="did you mean 'rethinking_domains'"):
        load_study("rethinking_domain")
    with pytest.raises(ConfigError, match="give a YAML file, or one of: embodied_midtrain_k, "):
        load_study("/nowhere/mine.yaml")


def test_a_rehearsal_has_small_counts_everywhere() -> None:
    small = plan(replace(load_study("rethinking_composition_compact"), scale=0.01))
    configs = {stage.name: stage.config for stage in small.stages()}
    assert (configs["midtrain"].steps, configs["midtrain"].batch, configs["compose"].budget) == (2, 4, 19)
    assert (configs["finetune"].steps, configs["rollout"].episodes, configs["capability"].budget) == (8, 1, 19)
    assert configs["demos"].episodes == 3
    assert {s.key for s in small.stages()}.isdisjoint(s.key for s in made("rethinking_composition_compact").stages())
