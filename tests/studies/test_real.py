"""One pathway through the real stages on a tiny random backbone: what the study names is what each stage is given."""

from pathlib import Path

import pytest

from embodied_midtrain.artifacts import Artifact, read_json
from embodied_midtrain.studies.calling import House, call, is_done
from embodied_midtrain.studies.graph import Stage
from embodied_midtrain.studies.plan import plan
from embodied_midtrain.studies.run import house_of, run_study
from tests.coupled.test_measured import calibration, written
from tests.studies import toy

pytestmark = pytest.mark.slow


def test_a_pathway_of_real_stages(tmp_path: Path) -> None:
    toy.data(tmp_path)
    settings = toy.values(tmp_path)["settings"] | {"midtrain": {**toy.LOOP, "max_tokens": 200}}
    held = {"stage": "drift", "of": "policy", "inputs": {"base": "stage1", "model": "policy", "robots": "robot"}}
    held["figures"] = {"text": "drift.json:cka.robot.text.-1"}
    kept = {"stage": "retention", "inputs": {"before": "base", "after": ["model"], "pool": "both"}}
    kept["settings"] = {"captions": ["books", "charts"], "choices": 2, "considered": 12}
    study = toy.study(
        tmp_path,
        training_seeds=[0],
        heads={"query": {"head": "query"}},
        settings={**settings, "drift": {"rows": 4, "batch_size": 4}},
        measures={"kept": {**kept, "figures": {"kept": "retention.json:abilities.captions.shares.1"}}, "held": held},
    )
    found = run_study(study, tmp_path / "out", only=("mid+robot",))
    assert {v.name: v.state for v in found.variants} == {"base": "not run", "mid": "not run", "mid+robot": "done"}
    assert [(c.variant, c.all.episodes) for c in found.cells] == [("mid+robot", 4)]
    house, cell = house_of(study, tmp_path / "out"), plan(study).only(("mid+robot",)).cells[0]
    robot = cell.policy.inputs["backbone"]
    assert isinstance(robot, Stage) and cell.policy.inputs["start"] is robot
    begun, joint = (Artifact.open(house.of(one), "finetune") for one in (cell.policy, robot))
    assert set(begun.manifest["inputs"]) == {"backbone", "demos", "start"}
    assert joint.counts["vqa_seen"] == 2 and set(joint.counts["vqa_composition"]) == {"books"}
    midtrained = robot.inputs["backbone"]
    assert isinstance(midtrained, Stage)
    counts = Artifact.open(house.of(midtrained), "midtrain").counts
    assert (counts["selected"], counts["samples_seen"]) == (12, 8)
    assert {f.name: 0 < f.mean <= 1 for f in found.figures} == {"kept": True, "text": True}


def test_questions_and_probes_of_data_without_a_simulator(tmp_path: Path) -> None:
    written(tmp_path / "stack.hdf5")
    calibration(tmp_path)
    values = toy.values(tmp_path)
    given = {
        "path": "stack.hdf5",
        "measured": {"state": "pose", "opening": 3, "every": 3},
        "calibration": "cameras.yaml",
    }
    values["data"] |= {
        "stack": given,
        "etc": {"stage": "couple", "inputs": {"episodes": "stack"}},
        "seen": {"stage": "embed", "inputs": {"target": "stack"}, "settings": {"frames_per_episode": 8}},
    }
    probed = {"stage": "probe", "inputs": {"features": "seen", "target": "stack"}, "settings": {"state": "pose"}}
    values["variants"] = {"mid": {"stages": [{"stage": "midtrain", "inputs": {"pool": "etc"}}]}}
    study = toy.study(tmp_path, **values | {"measures": {"probe": probed}, "training_seeds": [0]})
    house, done = House(tmp_path / "out", tmp_path), {}
    for stage in plan(study).stages():
        if stage.name in ("couple", "embed", "probe"):
            done[stage.name] = call(house, stage)
            assert is_done(house, stage)
    assert {"path", "grasp-point"} <= set(done["couple"].counts["kinds"]), "the calibration is used"
    read = read_json(done["probe"].file("probe.json"))["layers"][0]["targets"]
    assert read["state"]["measure"] == "R2"
