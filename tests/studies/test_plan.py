"""The graph of a study: what is shared, what a change touches, what is refused before any work."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.config import ConfigError
from embodied_midtrain.coupled.measured import MeasuredConfig
from embodied_midtrain.studies.calling import House
from embodied_midtrain.studies.graph import Given, Plan, changed
from embodied_midtrain.studies.plan import plan
from embodied_midtrain.studies.stages import STAGES, kind_of
from tests.studies import toy


def keys(of: Plan) -> list[str]:
    return [stage.key for stage in of.stages()]


def counts(of: Plan) -> dict[str, int]:
    names = [stage.name for stage in of.stages()]
    return {name: names.count(name) for name in dict.fromkeys(names)}


def test_what_is_shared_is_there_once(tmp_path: Path) -> None:
    made = plan(toy.study(tmp_path))
    # 2 seeds; mid-training is shared by two variants, its composition by all seeds.
    assert counts(made) == {"finetune": 2 * (3 * 2 + 1), "rollout": 2 * 3 * 2, "compose": 1, "midtrain": 2}
    users = made.users()
    assert {s.name: users[s.key] for s in made.stages() if len(users[s.key]) > 1} == {
        "compose": ("mid", "mid+robot"),
        "midtrain": ("mid", "mid+robot"),
    }
    before: set[str] = set()
    for stage in made.stages():
        assert all(one.key in before for one in stage.before())
        before.add(stage.key)


def test_seeds_go_where_training_is(tmp_path: Path) -> None:
    made = plan(toy.study(tmp_path, seed=10))
    seeds = {s.key: s.config.seed for s in made.stages() if hasattr(s.config, "seed")}
    assert {seeds[key] for key in seeds if key.startswith("compose")} == {10}
    assert {seeds[key] for key in seeds if key.startswith("midtrain")} == {10, 11}
    assert {cell.policy.config.seed for cell in made.cells if cell.seed == 1} == {11}


def test_a_change_touches_what_depends_on_it(tmp_path: Path) -> None:
    before = set(keys(plan(toy.study(tmp_path))))
    assert before == set(keys(plan(toy.study(tmp_path, name="another", about="what?"))))
    settings = toy.values(tmp_path)["settings"]
    settings["midtrain"] = {**settings["midtrain"], "lr": 1e-3}
    after = plan(toy.study(tmp_path, settings=settings))
    # The untouched variant and the composition stay.
    assert {s.key for s in after.stages() if s.key in before} == {
        s.key for s in after.stages() if s.name == "compose" or after.users()[s.key] == ("base",)
    }


def test_settings_lie_over_each_other(tmp_path: Path) -> None:
    values = toy.values(tmp_path)
    values["settings"]["finetune"]["joint"] = {"vqa_ratio": 0.5, "vqa_weight": 0.1}
    values["benchmarks"]["stage"]["settings"] = {"lr": 1e-4}
    values["variants"]["mid"]["target"] = {
        "inputs": {"vqa": "{benchmark}-vqa"},
        "settings": {"joint": {"vqa_weight": 1.0}},
    }
    values["data"]["stage-vqa"] = {"path": "books"}
    made = plan(toy.study(tmp_path, **values))
    policy = next(c.policy for c in made.cells if (c.variant, c.head) == ("mid", "fast"))
    config = policy.config
    assert (config.joint.vqa_ratio, config.joint.vqa_weight, config.lr) == (0.5, 1.0, 1e-4)
    assert (config.head, config.chunk, config.fast.fast_vocabulary) == ("fast", 4, 300)
    assert policy.inputs["vqa"].name == "stage-vqa"  # type: ignore[union-attr]


def test_only_some_variants(tmp_path: Path) -> None:
    whole = plan(toy.study(tmp_path))
    part = whole.only(("base",))
    assert counts(part) == {"finetune": 4, "rollout": 4} and set(keys(part)) < set(keys(whole))
    with pytest.raises(ConfigError, match="did you mean 'base'"):
        whole.only(("bas",))


def test_measures_are_taken_where_they_apply(tmp_path: Path) -> None:
    measures = {
        "drift": {"stage": "drift", "inputs": {"pool": "books"}, "figures": {"weights": "drift.json:weights.all"}},
        "held": {"stage": "drift", "of": "policy", "inputs": {"base": "stage1", "model": "policy", "robots": "robot"}},
    }
    made = plan(toy.study(tmp_path, measures=measures, training_seeds=[0]))
    taken = {m: {r.variant for r in made.readings if r.measure == m} for m in measures}
    assert taken == {"drift": {"base", "mid", "mid+robot"}, "held": {"mid", "mid+robot"}}
    assert len([r for r in made.readings if r.measure == "held"]) == 4, "of every policy"
    held = next(r for r in made.readings if r.measure == "held" and r.variant == "mid+robot")
    assert held.stage.inputs["base"].name == "midtrain"  # type: ignore[union-attr]


def test_a_measure_names_what_the_last_stage_of_a_kind_has_made(tmp_path: Path) -> None:
    values = toy.values(tmp_path)
    robot = values["variants"]["mid+robot"]["stages"][1]
    values["variants"]["robot"] = {"stages": [robot]}
    measures = {"held": {"stage": "drift", "inputs": {"base": "midtrain", "robots": "robot"}}}
    made = plan(toy.study(tmp_path, **values | {"measures": measures, "training_seeds": [0]}))
    bases = {r.variant: r.stage.inputs["base"].name for r in made.readings}  # type: ignore[union-attr]
    assert bases == {"mid": "midtrain", "mid+robot": "midtrain"}, "one without is not held to another kind"


def test_what_reads_models_by_name_leaves_out_those_that_have_none(tmp_path: Path) -> None:
    asked = {"stage": "retention", "inputs": {"before": "base", "after": ["model"], "pool": "books"}}
    values = toy.values(tmp_path)
    values["variants"]["scratch"] = {"random_language": True}
    made = plan(toy.study(tmp_path, **values | {"measures": {"kept": asked}, "training_seeds": [0]}))
    assert {r.variant for r in made.readings} == {"base", "mid", "mid+robot"}


def test_stages_are_functions_whose_signatures_say_what_they_take() -> None:
    kinds = {name: kind_of(name) for name in STAGES}
    assert kinds["midtrain"].slots["pool"].kind is Path and not kinds["midtrain"].slots["pool"].optional
    assert kinds["select"].slots["scores"].optional and kinds["compose"].slots["pools"].many is not None
    assert all(hasattr(kind.config, "__dataclass_fields__") for kind in kinds.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": {"books": {"path": "a", "stage": "pool"}}}, "either a path, or the stage"),
        ({"data": {"model": {"path": "a"}}}, "cannot be called model"),
        ({"data": {"a": {"stage": "compse"}}}, "did you mean 'compose'"),
        ({"baseline": "nobody"}, "no such variant"),
        ({"variants": {}}, "at least one of each"),
        ({"training_seeds": [1, 1]}, "different numbers"),
        ({"scale": 0}, "above 0"),
        ({"variants": {"a": {"stages": [{"stage": "midtrain", "inputs": {"pol": "books"}}]}}}, "did you mean 'pool'"),
        ({"variants": {"a": {"stages": [{"stage": "midtrain"}]}}}, "needs inputs: pool"),
        ({"variants": {"a": {"stages": [{"stage": "midtrain", "inputs": {"pool": ["books"]}}]}}}, "is one name"),
        ({"variants": {"a": {"stages": [{"stage": "midtrain", "inputs": {"pool": "boks"}}]}}}, "did you mean 'books'"),
        ({"settings": {"finetune": {"stps": 1}}}, "did you mean 'steps'"),
        ({"heads": {"a": {"head": "query", "widths": [1]}}}, "widths at least two"),
        ({"measures": {"m": {"stage": "drift", "figures": {"a": "b"}}}}, "FILE:KEY.KEY"),
        ({"measures": {"m": {"stage": "drift", "of": "x"}}}, "must be model or policy"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plan(toy.study(tmp_path, **change))


def test_data_that_go_round_in_a_circle(tmp_path: Path) -> None:
    made = {"stage": "compose", "settings": {"budget": 1}}
    data = {
        **toy.values(tmp_path)["data"],
        "a": {**made, "inputs": {"pools": ["b"]}},
        "b": {**made, "inputs": {"pools": ["a"]}},
    }
    with pytest.raises(ConfigError, match="circle: a needs b needs a"):
        plan(toy.study(tmp_path, data=data))


@dataclass(frozen=True)
class Inner:
    a: int = 1
    b: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outer:
    needed: int
    inner: Inner = field(default_factory=Inner)
    more: dict[str, float] = field(default_factory=dict)


def test_only_settings_that_were_changed_name_a_folder() -> None:
    assert changed(Outer(1)) == {"needed": 1}
    assert changed(Outer(1, Inner(b=(2,)), {"x": 0.5})) == {"needed": 1, "inner": {"b": [2]}, "more": {"x": 0.5}}


def test_given_robot_data_say_what_their_state_means(tmp_path: Path) -> None:
    meaning = {"measured": {"state": "pose", "opening": 3}, "calibration": "cameras.yaml"}
    told = {"path": "real", "camera": "front", **meaning}
    values = toy.values(tmp_path)
    values["data"] |= {"real": told, "etc": {"stage": "couple", "inputs": {"episodes": "real"}}}
    values["variants"]["mid"]["stages"] = [{"stage": "midtrain", "inputs": {"pool": "etc"}}]
    probed = {"stage": "probe", "inputs": {"features": "seen", "target": "robot"}, "settings": {"state": "pose"}}
    seen = {"stage": "embed", "inputs": {"target": "robot"}}
    made = plan(toy.study(tmp_path, **values | {"measures": {"seen": seen, "probe": probed}}))
    couple = next(stage for stage in made.stages() if stage.name == "couple")
    real = couple.inputs["episodes"]
    assert isinstance(real, Given) and real.measured == MeasuredConfig(state="pose", opening=3)
    assert real.key != replace(real, measured=None).key
    lying = House(tmp_path / "out", tmp_path).lying(real, Skips())
    assert (lying.measured, lying.camera, lying.calibration) == (real.measured, "front", tmp_path / "cameras.yaml")
    assert next(r.stage for r in made.readings if r.measure == "probe").config.state == "pose"
