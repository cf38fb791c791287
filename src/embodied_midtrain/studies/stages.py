"""Stages by name, and how what a study names becomes their arguments.

A stage is a function of an output folder, a config and inputs, so its own signature says what it takes: the config's
type is that of its parameter `config`, and each input is opened as its parameter's type says. A new stage is one line
in `STAGES`, and where its inputs are of a new type, one more in `OPENERS`.
"""

from __future__ import annotations

import importlib
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from embodied_midtrain.artifacts import Artifact, Skips
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.benchmarks.protocol import Actor
from embodied_midtrain.config import ConfigError, did_you_mean
from embodied_midtrain.coupled.calibration import read_calibration
from embodied_midtrain.coupled.measured import MeasuredConfig
from embodied_midtrain.coupled.opening import Traces, open_traces
from embodied_midtrain.episodes import Robots
from embodied_midtrain.policies.joint import ImageText
from embodied_midtrain.policies.opening import load_actor, open_policy
from embodied_midtrain.policies.policy import Policy
from embodied_midtrain.robots.opening import open_robots
from embodied_midtrain.samples import Pool
from embodied_midtrain.sources.opening import open_pool
from embodied_midtrain.sources.places import is_url

STAGES: dict[str, str] = {
    "pool": "embodied_midtrain.sources.registry.build:build_pool",
    "demos": "embodied_midtrain.benchmarks.demos:record_demos",
    "as-text": "embodied_midtrain.robots.action_text:robots_as_text",
    "compose": "embodied_midtrain.midtraining.compose:compose",
    "embed": "embodied_midtrain.features.extract:embed",
    "gap": "embodied_midtrain.gap.measure:measure_gap",
    "score": "embodied_midtrain.proximity.score:score",
    "select": "embodied_midtrain.proximity.select:select",
    "midtrain": "embodied_midtrain.midtraining.midtrain:midtrain",
    "finetune": "embodied_midtrain.policies.finetune:finetune",
    "rollout": "embodied_midtrain.benchmarks.rollout:rollout",
    "drift": "embodied_midtrain.diagnostics.drift:drift",
    "course": "embodied_midtrain.diagnostics.course:course",
    "retention": "embodied_midtrain.diagnostics.retention:retention",
    "probe": "embodied_midtrain.diagnostics.probe:probe",
    "couple": "embodied_midtrain.coupled.couple:couple",
    "capability": "embodied_midtrain.capabilities.make:capability",
}
"""Name: the stage's function. A study may also name a function itself, as package.module:function."""
MODELS = {"midtrain": "model", "finetune": "policy/backbone"}
"""Stages that make a model: where it lies in their folder."""
CACHES = ("finetune",)
"""Stages that share a folder of what the frozen vision tower made of frames, by their parameter `cache`."""
AT_HAND = {"backbone": "model", "actor": "policy", "base": "base", "model": "model"}
"""Inputs that need not be named, and what they are then."""


@dataclass(frozen=True)
class Lying:
    """What an input is opened from: a stage's folder, or given data with what the study says of them."""

    place: str
    skips: Skips
    images: Path | None = None
    camera: str | None = None
    split: str = "train"
    measured: MeasuredConfig = MeasuredConfig()
    calibration: Path | None = None
    state: str | None = None
    """That the stage asks for."""

    def traces(self) -> Traces:
        known = read_calibration(self.calibration) if self.calibration is not None else None
        return open_traces(self.place, self.measured, camera=self.camera, calibration=known)

    def robots(self) -> Robots:
        return open_robots(self.place, self.skips, camera=self.camera, split=self.split, state=self.state)


OPENERS: dict[type, Callable[[Lying], Any]] = {
    Policy: lambda it: open_policy(it.place),
    Actor: lambda it: load_actor(it.place),
    Pool: lambda it: open_pool(it.place, images=it.images, skips=it.skips),
    Traces: Lying.traces,
    Robots: Lying.robots,
    ImageText: lambda it: ImageText(it.place, images=it.images),
    Artifact: lambda it: Artifact.open(it.place),
    Path: lambda it: it.place if is_url(it.place) else Path(it.place),
}
"""By a parameter's type: how its input is opened; of one that takes several types, the first of these. Models are
opened apart: backbones may also be named, and a folder may hold a policy."""
KINDS = (Backbone, *OPENERS, str)


@dataclass(frozen=True)
class Slot:
    """One input of a stage: what it is opened as, and whether it may be left out, is a list or a mapping by name."""

    kind: type
    optional: bool
    many: type | None = None


@dataclass(frozen=True)
class Kind:
    """A stage's function, and what its signature says."""

    name: str
    function: Callable[..., Artifact]
    config: type
    slots: Mapping[str, Slot]
    takes: frozenset[str]
    """Names of all of its parameters."""


@cache
def kind_of(name: str) -> Kind:
    """Raises `ConfigError` where there is no such stage."""
    where = name if ":" in name else STAGES.get(name)
    if where is None:
        raise ConfigError(f"there is no stage '{name}'; {did_you_mean(name, STAGES)}")
    module, _, function = where.partition(":")
    try:
        return read_signature(name, getattr(importlib.import_module(module), function))
    except (ModuleNotFoundError, AttributeError, KeyError) as error:
        raise ConfigError(f"{where} is no stage: {error}") from error


def read_signature(name: str, function: Callable[..., Artifact]) -> Kind:
    hints = get_type_hints(function)
    slots = {}
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        slot = _slot(hints[parameter.name], parameter.default is not inspect.Parameter.empty)
        if slot is not None:
            slots[parameter.name] = slot
    return Kind(name, function, hints["config"], slots, frozenset(hints))


def _slot(hint: Any, optional: bool) -> Slot | None:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        if get_origin(option) in (Sequence, Mapping):
            inner = _slot(get_args(option)[-1], optional)
            return None if inner is None else Slot(inner.kind, optional, get_origin(option))
    found = next((kind for kind in KINDS if kind in options), None)
    return None if found is None else Slot(found, optional)


def check_inputs(kind: Kind, given: Mapping[str, Any], where: str) -> None:
    """Raise `ConfigError` on an input that the stage does not take, with the nearest, or one that it lacks."""
    for name, value in given.items():
        if name not in kind.slots:
            hint = did_you_mean(name, kind.slots, "it takes")
            raise ConfigError(f"{where}: stage {kind.name} has no input '{name}'; {hint}")
        slot = kind.slots[name]
        if isinstance(value, list) != (slot.many is not None) and not (slot.kind is Robots and isinstance(value, list)):
            wanted = "a list of names" if slot.many else "one name"
            raise ConfigError(f"{where}: input {name} of stage {kind.name} is {wanted}, not {value!r}")
    lacking = [n for n, s in kind.slots.items() if not s.optional and n not in given and n not in AT_HAND]
    if lacking:
        raise ConfigError(f"{where}: stage {kind.name} needs inputs: {', '.join(lacking)}")
