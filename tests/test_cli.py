import subprocess
import sys

import pytest

from embodied_midtrain.cli import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "embodied_midtrain.cli", *name.split(), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "emt " + name in done.stdout


def test_mistakes_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embd"]) == 2
    assert "did you mean 'embed'?" in capsys.readouterr().err
    assert main([]) == 0 and main(["--version"]) == 0
    assert main(["gap", "--pool", "/nonexistent", "--target", "/nonexistent", "--out", "/nonexistent"]) == 1
    assert "is not an artifact" in capsys.readouterr().err
    assert main(["run", "no-such-recipe"]) == 1
    assert "no recipe" in capsys.readouterr().err
