"""Every command that documentation and help show can be given: the command is there, and so are its options."""

import functools
import importlib
import re
import shlex
from pathlib import Path

import pytest
import tyro

from embodied_midtrain import cli, config
from embodied_midtrain.recipes import run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(text):
    """The lines that call `emt`, or the module by a launcher, their continuations joined."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        found = re.match(r"\s*(?:emt |accelerate launch .*-m embodied_midtrain\.cli )(.*?)(?:\s+#.*|\s+>.*)?$", line)
        if found and found[1]:
            yield shlex.split(found[1])


def shown(page):
    return [
        words for block in re.findall(r"```(?:bash)?\n(.*?)```", page.read_text(), re.S) for words in commands(block)
    ]


def function_of(name):
    module, function = cli.COMMANDS[name][0].split(":")
    return getattr(importlib.import_module(f"embodied_midtrain.{module}"), function)


def helped(name):
    return [words for words in commands(function_of(name).__doc__) if " ".join(words).startswith(name)]


@pytest.fixture
def understood(monkeypatch, capsys):
    """Takes the words of a command and lets tyro understand them; nothing is run."""

    class Parser:
        conf = tyro.conf

        @staticmethod
        def cli(function, **given):
            @functools.wraps(function)
            def idle(*_, **__):
                return None

            return tyro.cli(idle, **given)

    monkeypatch.setattr(config, "tyro", Parser)

    def understand(words):
        name, rest = cli._command(words)
        assert name is not None, f"no command in: {' '.join(words)}"
        if rest and rest[-1] == "--help":
            return
        try:
            if name in cli.READ_THEMSELVES:
                recipe, options = ("quickstart", rest) if name == "quickstart" else (rest[0], rest[1:])
                run._run(recipe if recipe in run.named_recipes() else "quickstart", options, f"emt {name}")
                return
            config.parse(function_of(name), rest, f"emt {name}")
        except SystemExit:
            pytest.fail(f"emt {shlex.join(words)}\n{capsys.readouterr().err}")

    return understand


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_can_be_given(page, understood):
    for words in shown(page):
        understood(words)


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name not in cli.READ_THEMSELVES])
def test_the_examples_of_a_command_can_be_given(name, understood):
    for words in helped(name):
        understood(words)


def test_there_is_something_to_look_at():
    assert sum(len(shown(page)) for page in PAGES) > 40
    assert all(helped(name) for name in cli.COMMANDS if name not in cli.READ_THEMSELVES)
