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
