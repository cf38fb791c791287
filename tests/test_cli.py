import subprocess
import sys

import pytest

from embodied_midtrain.cli import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert main([*name.split(), "--help"]) == 0
    except SystemExit as stopped:
        assert stopped.code in (0, None)
    said = capsys.readouterr().out
    assert said.count(f"emt {name}") >= 2, "usage and an example"


def test_mistakes_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embd"]) == 2
    assert "did you mean 'embed'?" in capsys.readouterr().err
    assert main([]) == 0 and main(["--version"]) == 0
    assert main(["gap", "--pool", "/nonexistent", "--target", "/nonexistent", "--out", "/nonexistent"]) == 1
    assert "is not an artifact" in capsys.readouterr().err
    assert main(["run", "no-such-recipe"]) == 1
    assert "no recipe" in capsys.readouterr().err


LOUD = """
import sys, types
from embodied_midtrain import cli
loud = types.ModuleType("embodied_midtrain.loud")
def f() -> None:
    for _ in range(20000):
        print("x" * 100)
loud.f = f
sys.modules["embodied_midtrain.loud"] = loud
cli.COMMANDS["loud"] = ("loud:f", "")
sys.exit(cli.main(["loud"]))
"""


def test_a_reader_that_leaves_is_no_fault():
    process = subprocess.Popen([sys.executable, "-c", LOUD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 141 and process.stderr.read() == ""
    process.stderr.close()
