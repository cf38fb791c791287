import json
import os
import sys

import pytest

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.cli import main
from embodied_midtrain.diagnostics import lmms
from embodied_midtrain.diagnostics.lmms_tasks.spatialeval.answers import letter, score

RESULT = {
    "results": {
        "pope": {"alias": "pope", "pope_accuracy,none": 0.875, "pope_accuracy_stderr,none": "N/A"},
        "blink": {"alias": "blink", "blink_acc,none": 0.5},
    },
    "n-samples": {
        "pope": {"original": 9000, "effective": 80},
        "blink_counting": {"original": 120, "effective": 30},
        "blink_jigsaw": {"original": 150, "effective": 10},
    },
}


def test_its_results_become_rows():
    found = lmms.shares(RESULT, ("pope", "blink"))
    assert found["pope"]["share"] == 0.875 and found["pope"]["questions"] == 80
    assert found["pope"]["low"] < 0.875 < found["pope"]["high"]
    assert found["blink"]["questions"] == 40
    with pytest.raises(StageError, match="no visulogic_acc"):
        lmms.shares(RESULT, ("visulogic",))
    with pytest.raises(StageError, match="is no share"):
        lmms.shares({"results": {"pope": {"pope_accuracy,none": 87.5}}}, ("pope",))


def test_the_kind_is_told_by_the_config(tmp_path):
    for kind, wanted in (("qwen3_vl", "qwen3_vl"), ("internvl", "internvl_hf"), ("paligemma", "huggingface")):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        assert lmms.kind_of(str(tmp_path)) == wanted
    assert lmms.kind_of("Qwen/Qwen2.5-VL-3B-Instruct") == "qwen2_5_vl"
    assert lmms.kind_of("OpenGVLab/InternVL3_5-1B-HF") == "internvl_hf"
    assert lmms.kind_of("HuggingFaceTB/SmolVLM2-256M-Video-Instruct") == "huggingface"
    with pytest.raises(StageError, match="only this package knows"):
        lmms.kind_of("compact")


def test_commands_are_shown_and_run_once(tmp_path, monkeypatch, capsys):
    given = ["retention", "--out", str(tmp_path), "--pool", "p", "--before", "Qwen/Qwen3-VL-2B", "--after", "adapted"]
    assert main([*given, "--lmms-eval", "pope", "spatialeval", "--lmms-arguments=--limit 5", "--dry-run"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("python -m lmms_eval --model qwen3_vl --model_args pretrained=Qwen/Qwen3-VL-2B")
    assert "--tasks pope,spatialeval" in second and second.endswith("--limit 5") and "--include_path" in second
    assert main([*given, "--lmms-eval", "pope"]) == 1
    assert "lmms-eval is not installed" in capsys.readouterr().err

    # A program of that name that writes what the real one would.
    package = tmp_path / "site" / "lmms_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import sys, json, pathlib\n"
        "out = pathlib.Path(sys.argv[sys.argv.index('--output_path') + 1]) / 'model'\n"
        "out.mkdir(parents=True)\n"
        f"(out / '20260101_results.json').write_text({json.dumps(json.dumps(RESULT))})\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), *sys.path]))
    calls = [lmms.Call("m", "huggingface", ("pope", "blink"), tmp_path / "out" / "00")]
    assert lmms.run_all(calls, ["m"])["pope"]["m"]["share"] == 0.875
    monkeypatch.setattr(lmms.subprocess, "run", None)
    assert lmms.run_all(calls, ["m"])["blink"]["m"]["share"] == 0.5


def test_a_failed_run_is_told(tmp_path):
    with pytest.raises(StageError, match="ended with status"):
        lmms.run_all([lmms.Call("m", "huggingface", ("pope",), tmp_path)], ["m"])


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("B", "B"),
        ("(C)", "C"),
        ("D. 4", "D"),
        ("The answer is A.", "A"),
        ("Answer: (B)", "B"),
        ("A dog", ""),
        ("", ""),
    ],
)
def test_spatialeval_reads_the_letter(said, wanted):
    assert letter(said) == wanted
    assert score({"oracle_option": "B"}, [said]) == {"spatialeval_acc": float(wanted == "B")}
