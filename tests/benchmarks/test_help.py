"""The help of the simulator's commands shows calls that can be made."""

import pytest

from embodied_midtrain.cli import main


@pytest.mark.parametrize("command", ["demos", "rollout", "rollouts play", "rollouts compare"])
def test_help_shows_examples(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([*command.split(), "--help"])
    assert left.value.code == 0
    assert f"emt {command} --" in capsys.readouterr().out.split("Examples:")[1]
