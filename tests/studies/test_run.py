"""Studies run: shared stages once, extensions alone, failures kept to those concerned, kills gone on from."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from embodied_midtrain.artifacts import Artifact, StageError
from embodied_midtrain.benchmarks.comparison import Record
from embodied_midtrain.benchmarks.rollout import EpisodeResult
from embodied_midtrain.cli import main
from embodied_midtrain.intervals import holm
from embodied_midtrain.report.study import load_study_summary
from embodied_midtrain.studies import engine
from embodied_midtrain.studies.calling import House, is_done
from embodied_midtrain.studies.engine import State, work
from embodied_midtrain.studies.graph import Base, Given, Stage
from embodied_midtrain.studies.outline import outline
from embodied_midtrain.studies.plan import plan
from embodied_midtrain.studies.processes import Processes
from embodied_midtrain.studies.results import _comparisons
from embodied_midtrain.studies.run import house_of, run_study, study_so_far
from embodied_midtrain.studies.study import Call, Study, Variant
from tests.studies import fakes as fake
from tests.studies import toy

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fakes")]


def test_the_document_holds_what_was_played(whole: tuple[Study, Path]) -> None:
    study, out = whole
    found = load_study_summary(out)
    assert found.state == "done" and {v.name: v.state for v in found.variants} == dict.fromkeys(study.variants, "done")
    assert {(c.variant, c.head): (c.all.episodes, set(c.by_seed)) for c in found.cells} == {
        (name, head): (8, {"0", "1"}) for name in study.variants for head in study.heads
    }
    for cell in found.cells:
        assert 0 <= cell.all.low <= cell.all.success <= cell.all.high <= 1 and cell.all.note == "too few episodes"
        assert cell.spread is not None and set(cell.tasks) == {"close", "open"}
        assert cell.all.success == pytest.approx(sum(cell.by_seed.values()) / 2)
    assert [(c.variant, c.against, c.head, c.pairs) for c in found.comparisons] == [
        (name, "base", head, 8) for name in ("mid", "mid+robot") for head in ("query", "fast")
    ]
    assert sorted(c.p_adjusted for c in found.comparisons) == sorted(holm([c.p for c in found.comparisons]))
    assert all(s.time.state == "done" and s.time.seconds > 0 for s in found.stages)
    assert any("most often those of books: 1.5 times each" in note for note in found.notes)
    text = (out / "study.md").read_text()
    assert "| as it is |" in text and "too few episodes" in text and found.provenance.command == "emt study toy.yaml"


def test_what_training_does_reaches_the_policy(whole: tuple[Study, Path]) -> None:
    study, out = whole
    cell = next(c for c in plan(study).cells if (c.variant, c.seed, c.head) == ("mid+robot", 1, "fast"))
    folder = house_of(study, out).of(cell.policy)
    way = (folder / "policy" / "backbone" / "way.txt").read_text()
    begun, *steps = way.split(" > ")
    assert begun == Path(study.backbone).name
    assert steps == ["0.0001 seed 1", "robot + books query seed 1", "robot fast seed 1"]


def test_dry_run_is_what_runs_and_a_second_call_does_nothing(
    whole: tuple[Study, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, out = whole
    told = outline(plan(study), (), house_of(study, tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    assert {row["key"] for row in told["stages"]} == {p.name for p in (out / "stages").iterdir()}
    assert told["to_do"] == len(told["stages"]) and told["calls"] > len(told["stages"])
    assert outline(plan(study), (), house_of(study, out))["to_do"] == 0
    with fake.heard(monkeypatch) as done:
        run_study(study, out)
    assert done == []


def test_what_is_done_so_far_is_told_without_work(
    whole: tuple[Study, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, before = whole
    out = tmp_path / "half"
    shutil.copytree(before, out)
    (lost, *_) = [cell.rollout for cell in plan(study).cells if cell.variant == "mid" and cell.rollout is not None]
    shutil.rmtree(out / "stages" / lost.key)
    with fake.heard(monkeypatch) as done:
        found = study_so_far(study, out)
    assert done == [] and not (out / "stages" / lost.key).exists()
    full = load_study_summary(before)
    assert found == load_study_summary(out) and found.state == "partial"
    assert [(v.name, v.state, v.why) for v in found.variants if v.state != "done"] == [
        ("mid", "partly run", "3 of 4 policies")
    ]
    assert [c for c in found.cells if c.variant == "base"] == [c for c in full.cells if c.variant == "base"]


def test_a_new_variant_runs_only_what_is_new(
    whole: tuple[Study, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, before = whole
    out = tmp_path / "more"
    shutil.copytree(before, out)
    scratch = Variant(title="random words", random_language=True)
    assert len(plan(replace(study, variants={**study.variants, "scratch": scratch}, heads={})).cells) == 8
    wider = replace(study, variants={**study.variants, "mid-2": replace(study.variants["mid"], title="again")})
    with fake.heard(monkeypatch) as done:
        found = run_study(wider, out)
    assert done == [], "the same pathway under another name"
    robot = Call(stage="finetune", inputs={"demos": "robot"}, settings={"chunk": 4, "executed": 2})
    wider = replace(study, variants={**study.variants, "robot": Variant(stages=(robot,))})
    with fake.heard(monkeypatch) as done:
        found = run_study(wider, out)
    # Its robot stage is what base has trained on the target with that head.
    assert Counter(key.split("-")[0] for key in done) == {"finetune": 4, "rollout": 4}
    assert {c.variant for c in found.cells} == {*study.variants, "robot"}


def record(successes: int, start: str = "") -> Record:
    """Of 40 episodes."""
    made = Record()
    made.add(EpisodeResult("push", n, n, f"{start}{n}", "", n < successes, 5) for n in range(40))
    return made


def test_a_control_tests_the_benchmark_and_not_itself() -> None:
    variants = {"base": Variant(), "a": Variant(), "b": Variant(), "scratch": Variant(random_language=True)}
    study = Study(name="s", variants=variants, benchmarks={})
    played = {"base": record(20), "a": record(27), "b": record(26), "scratch": record(14)}
    rows, unlike = _comparisons(study, {(name, "push", ""): one for name, one in played.items()})
    assert [r.p for r in rows] == [2 / 2**7, 2 / 2**6, 2 / 2**6] and unlike == ()
    assert [(r.variant, r.p_adjusted, r.outcome) for r in rows] == [
        ("a", 4 / 2**7, "better"),
        ("b", 4 / 2**7, "better"),
        ("scratch", 2 / 2**6, "worse"),
    ]


def test_what_did_not_begin_alike_is_said_and_not_compared() -> None:
    study = Study(name="s", variants={"base": Variant(), "a": Variant(), "late": Variant()}, benchmarks={})
    played = {"base": record(20), "a": record(27, "other "), "late": Record()}
    rows, (unlike,) = _comparisons(study, {(name, "push", ""): one for name, one in played.items()})
    assert rows == () and "a and base did not begin push (state 0) alike" in unlike


def test_what_fails_leaves_the_others(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = toy.values(root) | {"training_seeds": [0], "heads": {}}
    stage = values["variants"]["mid"]["stages"][0]
    values["variants"]["mid"]["stages"][0] = {**stage, "settings": {"fail": "no sample can be used"}}
    file, out = tmp_path / "broken.yaml", tmp_path / "out"
    file.write_text(json.dumps(values))
    assert main(["study", str(file), "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert "1 failed: midtrain-" in said.err and "no sample can be used" in said.err
    found = load_study_summary(out)
    assert {v.name: v.state for v in found.variants} == {"base": "done", "mid": "failed", "mid+robot": "done"}
    assert found.state == "partial" and {c.variant for c in found.cells} == {"base", "mid+robot"}
    (row,) = (line for line in (out / "study.md").read_text().splitlines() if line.startswith("| mid |"))
    assert "failed: midtrain (mid, seed 0): no sample can be used" in row
    left = [s for s in found.stages if s.time.state == "needs"]
    assert {s.stage for s in left} == {"finetune", "rollout"} and all("midtrain-" in s.time.note for s in left)
    assert main(["study", str(file), "--out", str(out), "--dry-run"]) == 0
    assert "failed before: midtrain-" in capsys.readouterr().out
    assert main(["study", str(file), "--out", str(out), "--only", "base"]) == 0, "nothing of it has failed"
    # Mended, it goes on.
    values["variants"]["mid"]["stages"][0] = stage
    file.write_text(json.dumps(values))
    assert main(["study", str(file), "--out", str(out)]) == 0
    assert load_study_summary(out).state == "done"


def test_a_fault_of_ours_is_kept_to_its_stage(root: Path, tmp_path: Path) -> None:
    settings = toy.values(root)["settings"] | {"midtrain": {"fail": "bug"}}
    found = run_study(toy.study(root, training_seeds=[0], heads={}, settings=settings), tmp_path / "out")
    assert [c.variant for c in found.cells] == ["base"]
    failed = next(s for s in found.stages if s.time.state == "failed")
    assert "surprise" in failed.time.note
    assert "KeyError" in (tmp_path / "out" / "times" / failed.time.name / engine.TRACEBACK).read_text()


class Killed(BaseException):
    pass


def test_killed_in_any_stage_it_goes_on_and_ends_the_same(
    root: Path, whole: tuple[Study, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, out = toy.study(root, training_seeds=[0], heads={}), tmp_path / "out"
    real, begun = engine.call, set[str]()

    def call(house: House, stage: Stage) -> Artifact:
        if stage.key not in begun:
            begun.add(stage.key)
            raise Killed
        return real(house, stage)

    monkeypatch.setattr(engine, "call", call)
    stages = plan(study).stages()
    for _ in stages:
        with pytest.raises(Killed):
            run_study(study, out)
        assert load_study_summary(out).state == "partial"
    assert run_study(study, out).state == "done"
    straight = tmp_path / "straight"
    run_study(study, straight)
    for stage in stages:
        a, b = (Artifact.open(house_of(study, place).of(stage)).fingerprint for place in (straight, out))
        assert a == b, stage.key


def test_other_data_under_the_same_name_are_refused(whole: tuple[Study, Path], root: Path, tmp_path: Path) -> None:
    study, before = whole
    out = tmp_path / "out"
    shutil.copytree(before, out)
    for name in ("robot", "charts"):
        shutil.copytree(root / name, tmp_path / name)
    toy.make_pool(tmp_path / "books", toy.samples()[1:4])
    found = run_study(replace(study, folder=tmp_path), out)
    states = {v.name: v for v in found.variants}
    assert states["mid"].state == "failed" and "holds a result that does not fit" in states["mid"].why


def test_missing_data_are_said_before_any_work(root: Path, tmp_path: Path) -> None:
    data = toy.values(root)["data"] | {"charts": {"path": "nowhere", "home": "emt pool build --out nowhere"}}
    study = toy.study(root, data=data, training_seeds=[0], heads={})
    with pytest.raises(StageError, match=r"data.charts: there is no pool .*To be had: emt pool build.*for: mid, mid\+"):
        run_study(study, tmp_path / "out")
    assert not (tmp_path / "out" / "stages").exists()
    found = run_study(study, tmp_path / "out", only=("base",))
    assert [c.variant for c in found.cells] == ["base"]


def test_data_that_a_benchmark_cannot_act_on_are_refused_before_any_work(root: Path, tmp_path: Path) -> None:
    bench = toy.values(root)["benchmarks"]["stage"]
    other = {**bench, "rollout": {**bench["rollout"], "benchmark": "tests.benchmarks.fake_world:FakeWorld"}}
    with pytest.raises(StageError, match=r"fake and data\.robot do not mean the same by an action"):
        run_study(toy.study(root, benchmarks={"stage": other}), tmp_path / "out")
    assert not (tmp_path / "out" / "stages").exists()


def test_measures_become_figures(root: Path, tmp_path: Path) -> None:
    figures = {"steps": "drift.json:steps.-1.far", "nothing": "drift.json:steps.7.far", "word": "drift.json:word"}
    far = {"stage": "drift", "of": "policy", "inputs": {"base": "stage1", "model": "policy"}, "figures": figures}
    study = toy.study(root, measures={"far": far}, training_seeds=[0, 1], heads={})
    plain = outline(plan(replace(study, measures={})), (), house_of(study, tmp_path))
    # Of two variants with two seeds: finetune for one, compose and midtrain, drift.
    assert outline(plan(study), (), house_of(study, tmp_path))["calls"] == plain["calls"] + 2 * (4 + 5)
    found = run_study(study, tmp_path / "out")
    assert {(f.variant, f.name, f.mean) for f in found.figures} == {("mid", "steps", 1.0), ("mid+robot", "steps", 2.0)}
    assert all(set(f.by_seed) == {"0", "1"} and f.benchmark == "stage" for f in found.figures)
    assert "far: steps, stage" in (tmp_path / "out" / "study.md").read_text()


def test_several_processes_do_what_one_does(root: Path, tmp_path: Path) -> None:
    house = House(tmp_path / "out", root)
    named = fake.STAGES["midtrain"]
    inputs = {"backbone": Base("some"), "pool": Given("books", "books")}
    good = [Stage(named, fake.Mid(seed=seed), inputs, str(seed)) for seed in range(3)]
    bad = Stage(named, fake.Mid(fail="no luck"), inputs, "bad")
    after = Stage(fake.STAGES["drift"], fake.Far(), {"base": Base("some"), "model": bad}, "after")
    hands = Processes(2)
    try:
        found = work(house, [bad, *good, after], hands, lambda *_: None)
    finally:
        hands.close()
    assert found == {
        bad.key: State("failed", "no luck"),
        after.key: State("needs", bad.key),
        **{stage.key: State("done") for stage in good},
    }
    assert all(is_done(house, stage) for stage in good) and not is_done(house, bad)
