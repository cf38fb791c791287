from dataclasses import dataclass, field
from pathlib import Path

import pytest

from embodied_midtrain.config import ConfigError, load_yaml, parse, structure


@dataclass(frozen=True)
class Inner:
    steps: int = 5
    """Steps to take."""
    lr: float = 1e-3
    """Learning rate."""


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    tasks: tuple[str, ...] = ()


def test_a_mapping_becomes_a_config() -> None:
    assert structure(Outer, {"name": "a", "inner": {"lr": 1}, "tasks": ["x"]}) == Outer("a", Inner(5, 1.0), ("x",))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "a", "inner": {"stepps": 3}}, r"recipe\.inner: unknown key 'stepps'; did you mean 'steps'\?"),
        ({"name": "a", "zebra": 1}, "unknown key 'zebra'; there are: name, inner, tasks"),
        ({"inner": {}}, "name"),
        ({"name": "a", "inner": {"steps": "many"}}, r"recipe\.inner\.steps: wanted int, got 'many'"),
        ({"name": "a", "inner": {"steps": 1.5}}, "wanted int"),
        ({"name": "a", "inner": 3}, "inner"),
        ([1], "wanted a mapping"),
    ],
)
def test_mistakes_are_named_with_their_place(values: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        structure(Outer, values, "recipe")


def test_recipe_files(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    with pytest.raises(ConfigError, match="no recipe"):
        load_yaml(path)
    for text in ("a: [1", "- 1", ""):
        path.write_text(text)
        with pytest.raises(ConfigError):
            load_yaml(path)
    path.write_text("a: 1e-3\nb: [x]")
    assert load_yaml(path)["b"] == ["x"]


def test_the_command_line_fills_the_same_types(capsys: pytest.CaptureFixture[str]) -> None:
    def command(out: Path, config: Inner = Inner()) -> tuple[Path, Inner]:
        """Do it."""
        return out, config

    assert parse(command, ["--out", "x", "--steps", "9"], "emt do") == (Path("x"), Inner(9, 1e-3))
    with pytest.raises(SystemExit):
        parse(command, ["--out", "x", "--stepps", "9"], "emt do")
    assert "--steps" in capsys.readouterr().err
