"""How a benchmark of vla-eval is played: what its actions mean, which picture it shows, horizons of the papers.

A protocol is a YAML file that vla-eval runs as it is; what this package needs stands under `emt` in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.config import ConfigError, did_you_mean, load_yaml, structure
from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.robots.actions import check_specs
from embodied_midtrain.robots.conversions import check_conversion

FOLDER = Path(__file__).parent / "protocols"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What stands under `emt` in a protocol's file."""

    title: str
    """For people."""
    camera: str
    """Which of the benchmark's pictures a policy sees."""
    spec: dict[str, Any]
    """What the numbers of an action mean to the simulator: fields of `episodes.ActionSpec`."""
    chunk: int
    """Actions that the papers predict at a time."""
    executed: int
    """How many of them they execute before the next look."""
    steps: int
    """Steps after which a task has failed."""
    episodes: int
    """Episodes of the whole benchmark."""
    frames: Literal["upright", "mirrored"] = "upright"
    """Pictures as the camera sees them, or left and right exchanged, which are turned back for the policy."""
    announced: dict[str, str] = field(default_factory=dict)
    """What vla-eval calls a component's form, where that is not what it is: rotation, gripper."""
    also: tuple[str, ...] = ()
    """Further benchmark classes that are played by it."""
    opens_after: int = 1
    """Predictions to open in a row after which the gripper opens."""


@dataclass(frozen=True)
class Evaluation:
    """A protocol that was read.

    Attributes:
        name: of its file, without ending.
        path: of the file, for `vla-eval run --config`.
        spec: what an action means.
        classes: import names of vla-eval's benchmark classes that are played by it.
    """

    name: str
    path: Path
    settings: Settings
    spec: ActionSpec
    classes: tuple[str, ...]

    def check(self, spec: ActionSpec, *, convert: bool, policy: str) -> None:
        """Raise StageError where a policy's actions are not the benchmark's and may, or can, not be converted."""
        if spec == self.spec:
            return
        if not convert:
            try:
                check_specs(self.spec, spec, wanted_by=self.settings.title, given_by=policy)
            except StageError as error:
                hint = " --convert converts them." if self._convertible(spec) is None else ""
                raise StageError(f"{error}{hint}") from error
        if (reason := self._convertible(spec)) is not None:
            raise StageError(f"the actions of {policy} cannot become those of {self.settings.title}: {reason}.")

    def _convertible(self, spec: ActionSpec) -> str | None:
        """Why not, or None."""
        try:
            stride = check_conversion(spec, self.spec)
        except ValueError as error:
            return str(error)
        return None if stride == 1 else f"{spec.rate:g} actions a second are not {self.spec.rate:g}"


def protocol_names() -> list[str]:
    """Of the protocols that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def open_protocol(name: str) -> Evaluation:
    """A protocol by name, or of a file of your own (.yaml).

    Raises:
        ConfigError: no such name (with the nearest one), or a file that cannot be understood.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name.replace('-', '_')}.yaml"
    if not path.is_file():
        hint = did_you_mean(name.replace("-", "_"), protocol_names(), "give a file (.yaml), or one of")
        raise ConfigError(f"there is no benchmark protocol '{name}'; {hint}")
    values = load_yaml(path)
    if "emt" not in values:
        raise ConfigError(f"{path} has no 'emt': it is a config of vla-eval, but does not say what an action means.")
    settings = structure(Settings, values["emt"], f"{path}: emt")
    try:
        spec = ActionSpec.from_json(settings.spec)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: emt.spec: {error}") from error
    benchmarks = values.get("benchmarks") or []
    classes = tuple(dict.fromkeys(str(entry.get("benchmark", "")) for entry in benchmarks if isinstance(entry, dict)))
    if not classes or not all(":" in name for name in classes):
        raise ConfigError(f"{path}: benchmarks: wanted at least one with 'benchmark: package.module:Class'")
    if not 1 <= settings.executed <= settings.chunk or settings.opens_after < 1:
        raise ConfigError(f"{path}: emt: executed must be 1 to chunk, and opens_after at least 1")
    return Evaluation(path.stem, path, settings, spec, (*classes, *settings.also))


def protocol_of(benchmark: str) -> Evaluation | None:
    """The package's protocol that plays a benchmark class of vla-eval."""
    found = (open_protocol(name) for name in protocol_names())
    return next((one for one in found if benchmark in one.classes), None)
