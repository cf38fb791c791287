"""A study as one typed document: pathways x seeds x heads x benchmarks, and the data that they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from embodied_midtrain.config import ConfigError, did_you_mean, load_yaml, structure
from embodied_midtrain.coupled.measured import MeasuredConfig
from embodied_midtrain.recipes.benchmarks import Arena

FILES = Path(str(resources.files("embodied_midtrain.studies"))) / "files"
"""Studies of the package; those whose names begin with _ are only extended."""
RESERVED = ("model", "base", "policy", "midtrain", "finetune")
"""What is at hand where a stage is called: the model so far, the variant's own backbone, a measure's policy, and what
the pathway's last stage of that name has made."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A stage by its name (`studies.stages.STAGES`), what goes in, and how."""

    stage: str
    """Such as midtrain."""
    inputs: dict[str, Any] = field(default_factory=dict)
    """The stage's inputs: for each the name of an entry of `data` (or several, as a list), of an earlier measure, or
    model, base, policy, midtrain, finetune, stage1, stage2, ... The model, and the policy that is played, need not be
    named."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of the stage's config, over those that the study's `settings` give for the stage."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Data that variants share: given, or made by a stage."""

    path: str = ""
    """Given: a pool, robot data, or a stage's folder. A relative path starts from the study's folder."""
    images: Path | None = None
    """Of a pool: folder that its paths of images start from."""
    camera: str | None = None
    """Of robot data: which pictures to take where there are several."""
    split: str = "train"
    """Of robot data in RLDS."""
    measured: MeasuredConfig | None = None
    """Of robot data that questions are to be asked about, where no simulator told its truth: what its state means."""
    calibration: Path | None = None
    """Of its camera, as `emt couple` takes it."""
    home: str = ""
    """Where given data are to be had, or the command that makes them: said where they are missing."""
    stage: str = ""
    """Made: as in `Call`, with the next two."""
    inputs: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OnTarget:
    """What a variant changes in fine-tuning on a benchmark's demonstrations."""

    inputs: dict[str, Any] = field(default_factory=dict)
    """Such as {vqa: etc}: image-text samples beside the robot's frames. {benchmark} in a name becomes the
    benchmark's."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of the fine-tuning's config, over the study's, the benchmark's and the head's."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way from a backbone to a policy."""

    title: str = ""
    """For readers."""
    backbone: str = ""
    """Another than the study's."""
    random_language: bool = False
    """Start the language model from random weights: the control that shows whether a benchmark can tell
    initialisations apart."""
    stages: tuple[Call, ...] = ()
    """On the way, in order, each on the model that the one before has made: midtrain on image-text samples, finetune
    on robot data (with vqa beside them, or alone)."""
    target: OnTarget = field(default_factory=OnTarget)
    against: str = ""
    """The variant that it is tested against; empty: the study's baseline."""


@dataclass(frozen=True, kw_only=True)
class Bench(Arena):
    """A benchmark, and the demonstrations that its policies are trained on."""

    demos: str
    """The entry of `data`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of the fine-tuning's config on these demonstrations."""


@dataclass(frozen=True, kw_only=True)
class Measure(Call):
    """Something that is measured of every variant beside success, such as drift, retention or a probe."""

    of: str = "model"
    """model: of what the pathway has made, once a training; policy: of every policy."""
    figures: dict[str, str] = field(default_factory=dict)
    """Numbers for the table: a name, and where it stands, as FILE:KEY.KEY in the stage's folder, such as
    drift.json:weights.all. None: the stage only prepares another."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Variants, and everything that is the same for them."""

    name: str
    """Of the study; also its folder under runs/."""
    about: str = ""
    """What is asked, in a sentence; the page opens with it."""
    seed: int = 0
    """Added to the seeds of all stages."""
    backbone: str = "compact"
    """"compact", or the name or folder of a transformers image-text-to-text model."""
    scale: float = 1.0
    """Every count (samples, steps, batches, episodes) is multiplied by it: a small factor checks a long study from end
    to end, and shows nothing of success."""
    folder: Path | None = None
    """What relative paths of given data start from; by default the working folder."""
    training_seeds: tuple[int, ...] = (0,)
    """Every pathway is walked once with each; data are the same for all."""
    baseline: str = ""
    """The variant that others are tested against; empty: the first."""
    data: dict[str, Entry] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By stage: fields of its config, wherever the study calls it."""
    variants: dict[str, Variant]
    heads: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name: fields of the fine-tuning's config. None given: one head, as `settings` have it."""
    benchmarks: dict[str, Bench]
    measures: dict[str, Measure] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """The baseline's name."""
        return self.baseline or next(iter(self.variants))

    def against(self, variant: str) -> str:
        """Which variant this one is tested against; itself for a baseline."""
        return self.variants[variant].against or self.reference

    def title(self, variant: str) -> str:
        return self.variants[variant].title or variant

    def check(self) -> None:
        """Raise `ConfigError` or `ValueError` on names and numbers that cannot be meant; `plan` checks the stages."""
        if not self.variants or not self.benchmarks:
            raise ConfigError("a study needs variants and benchmarks: at least one of each")
        for what, named in (("variants", list(self.variants)), ("heads", list(self.heads))):
            if bad := [n for n in named if not n.replace("-", "").replace("_", "").replace("+", "").isalnum()]:
                raise ConfigError(f"names of {what} are letters, digits, -, _ and + only, not {bad}")
        for name, bench in self.benchmarks.items():
            bench.check(name)
        if not self.training_seeds or len(set(self.training_seeds)) != len(self.training_seeds):
            raise ConfigError(f"training_seeds must be different numbers, at least one, not {self.training_seeds}")
        for name in {self.reference, *(v.against for v in self.variants.values() if v.against)}:
            if name not in self.variants:
                raise ConfigError(f"'{name}' is to be tested against, but there is no such variant")
        if taken := [name for name in self.data if name in RESERVED or name in self.measures]:
            raise ConfigError(f"data cannot be called {', '.join(taken)}: the name means something else")
        for name, entry in self.data.items():
            if bool(entry.path) == bool(entry.stage):
                raise ConfigError(f"data.{name}: give either a path, or the stage that makes it")
        for name, measure in self.measures.items():
            if measure.of not in ("model", "policy"):
                raise ConfigError(f"measures.{name}: of is '{measure.of}'; it must be model or policy")
            later = list(self.measures)[list(self.measures).index(name) :]
            if early := [n for n in measure.inputs.values() if n in later]:
                raise ConfigError(f"measures.{name}: {early[0]} has to stand before it")
            if bad := [where for where in measure.figures.values() if ":" not in where]:
                raise ConfigError(f"measures.{name}: a figure is FILE:KEY.KEY, not {bad}")
        if not self.scale > 0:
            raise ConfigError(f"scale is {self.scale}; it must be above 0 (1: as written)")


def named_studies() -> dict[str, Path]:
    """Studies that come with the package, by name."""
    return {path.stem: path for path in sorted(FILES.glob("[!_]*.yaml"))}


def load_study(name_or_path: str | Path) -> Study:
    """A study by its name in the package, or from a YAML file.

    A file may go out from another, which it names as `extends` (in the package, or from its own folder): its values
    lie over the other's, but for variants, which are its own where it has any.

    Raises:
        ConfigError: where there is none, or a key or value in it is wrong.
    """
    named = named_studies()
    path = named.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        hint = did_you_mean(str(name_or_path), named, "give a YAML file, or one of")
        raise ConfigError(f"there is no study {name_or_path}; {hint}")
    study = structure(Study, _read(path, ()), path.name)
    study.check()
    return study


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path in above:
        raise ConfigError(f"studies extend each other in a circle: {', '.join(map(str, above))}")
    values = load_yaml(path)
    other = values.pop("extends", None)
    if other is None:
        return values
    within = FILES / f"{other}.yaml"
    before = _read(within if within.is_file() else path.parent / str(other), (*above, path))
    if values.get("variants"):
        before.pop("variants", None)
    return merged(before, values)


def merged(settings: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others over them; nested ones likewise."""
    new = dict(settings)
    for name, value in over.items():
        both = isinstance(value, Mapping) and isinstance(new.get(name), Mapping)
        new[name] = merged(new[name], value) if both else value
    return new
