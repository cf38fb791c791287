import pytest

from embodied_midtrain.artifacts import StageError, read_json
from embodied_midtrain.diagnostics.course import course, print_course
from embodied_midtrain.diagnostics.drift import DriftConfig
from tests.policies.test_finetune import run
from tests.tiny import Dots, backbone

CONFIG = DriftConfig(rows=12, layers=(0, 3))


def test_a_policy_moves_away_step_by_step(tmp_path, capsys):
    trained = run(tmp_path / "policy", milestones=(2, 6))
    made = course(tmp_path / "out", CONFIG, base=backbone("compact"), trained=trained, robots=Dots())
    facts = read_json(made.file("course.json"))
    assert [at["step"] for at in facts["course"]] == [2, 6, 12] and facts["layers"] == [0, 3]
    moved = [at["weights"] for at in facts["course"]]
    assert 0 < moved[0] < moved[1] < moved[2]
    text = [at["text"][-1] for at in facts["course"]]
    assert 1 > text[0] > text[2]
    print_course(facts)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["2", "6", "12"]


def test_a_policy_without_milestones(tmp_path):
    trained = run(tmp_path / "policy")
    with pytest.raises(StageError, match="--milestones 100 200"):
        course(tmp_path / "out", CONFIG, base=backbone("compact"), trained=trained, robots=Dots())
