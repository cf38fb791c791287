"""The graph of a study: stages whose names follow from what they do, so that each is there once."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from embodied_midtrain.artifacts import fingerprint_of, to_plain
from embodied_midtrain.config import ConfigError, did_you_mean
from embodied_midtrain.coupled.measured import MeasuredConfig
from embodied_midtrain.studies.study import Study


@dataclass(frozen=True)
class Base:
    """A backbone as it is published, or with a random language model of that seed."""

    name: str
    random_language: int | None = None

    @property
    def key(self) -> str:
        return self.name if self.random_language is None else f"{self.name} {self.random_language}"


@dataclass(frozen=True)
class Given:
    """Data that lie somewhere."""

    name: str
    path: str
    images: Path | None = None
    camera: str | None = None
    split: str = "train"
    home: str = ""
    measured: MeasuredConfig | None = None
    calibration: Path | None = None

    @property
    def key(self) -> str:
        told = [one for one in (self.measured, self.calibration) if one is not None]
        return fingerprint_of([self.path, self.images, self.camera, self.split, *told])


@dataclass(frozen=True)
class Stage:
    """One call of a stage. Its key is of what it does and of what from, so that equal calls are one."""

    name: str
    config: Any
    inputs: Mapping[str, Source | Mapping[str, Source]]
    label: str = field(compare=False)
    """For readers: which data, or whose training."""

    @cached_property
    def key(self) -> str:
        """Also its folder's name."""
        inputs = {
            slot: {name: one.key for name, one in given.items()} if isinstance(given, Mapping) else given.key
            for slot, given in self.inputs.items()
        }
        return f"{self.name.rpartition(':')[2]}-{fingerprint_of([self.name, changed(self.config), inputs])[:8]}"

    def sources(self) -> Iterator[Source]:
        """Everything that goes in."""
        for given in self.inputs.values():
            yield from given.values() if isinstance(given, Mapping) else (given,)

    def before(self) -> Iterator[Stage]:
        """The stages whose folders go in."""
        for source in self.sources():
            if isinstance(source, Stage):
                yield source


Source = Base | Given | Stage
STEP = re.compile(r"stage[1-9]\d*")
"""What a pathway's models are called, in order."""


def changed(config: Any) -> dict[str, Any]:
    """The settings that are not at their defaults: one that the code gets later renames no folder."""
    rows = {}
    for one in fields(config):
        value, default = getattr(config, one.name), one.default
        if one.default_factory is not MISSING:
            default = one.default_factory()
        if value != default:
            rows[one.name] = changed(value) if is_dataclass(value) else to_plain(value)
    return rows


@dataclass(frozen=True)
class Cell:
    """One policy on one benchmark: a variant with a seed and a head."""

    variant: str
    seed: int
    head: str
    benchmark: str
    policy: Stage
    rollout: Stage | None
    """None: vla-eval plays it."""

    @property
    def name(self) -> str:
        words = (self.benchmark, self.head, f"{self.variant}-seed-{self.seed}")
        return "/".join(word for word in words if word)


@dataclass(frozen=True)
class Reading:
    """One measure of one training, or of one of its policies."""

    variant: str
    seed: int
    measure: str
    stage: Stage
    head: str = ""
    benchmark: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything that a study consists of."""

    study: Study
    cells: tuple[Cell, ...]
    readings: tuple[Reading, ...]

    def only(self, variants: tuple[str, ...]) -> Plan:
        """What these variants need; all where none is named.

        Raises:
            ConfigError: on a name that the study has not.
        """
        for name in variants:
            if name not in self.study.variants:
                raise ConfigError(f"there is no variant '{name}'; {did_you_mean(name, self.study.variants)}")
        if not variants:
            return self
        cells = tuple(cell for cell in self.cells if cell.variant in variants)
        return replace(self, cells=cells, readings=tuple(r for r in self.readings if r.variant in variants))

    def wanted(self, reading: Reading) -> frozenset[str]:
        """Where a measure's figures stand in its folder; none where it only prepares another."""
        return frozenset(self.study.measures[reading.measure].figures.values())

    def without(self, known: Container[str]) -> Plan:
        """What is to do where the results of these stages are known."""
        cells = tuple(cell for cell in self.cells if cell.rollout is None or cell.rollout.key not in known)
        # Whoever needs what a measure prepares brings it along.
        prepared = {stage.key for reading in self.readings for stage in reading.stage.before()}
        readings = tuple(
            one
            for one in self.readings
            if one.stage.key not in known and (self.wanted(one) or one.stage.key not in prepared)
        )
        return replace(self, cells=cells, readings=readings)

    def stages(self) -> list[Stage]:
        """Each once, after what it needs; seed after seed, variant after variant."""
        found: dict[str, Stage] = {}

        def walk(stage: Stage) -> None:
            if stage.key not in found:
                for one in stage.before():
                    walk(one)
                found[stage.key] = stage

        for seed in self.study.training_seeds:
            for variant in self.study.variants:
                for cell in self.cells:
                    if (cell.seed, cell.variant) == (seed, variant):
                        walk(cell.rollout or cell.policy)
                for reading in self.readings:
                    if (reading.seed, reading.variant) == (seed, variant):
                        walk(reading.stage)
        return list(found.values())

    def users(self) -> dict[str, tuple[str, ...]]:
        """By stage: the variants that need it."""
        found: dict[str, dict[str, None]] = {}

        def walk(stage: Stage, variant: str) -> None:
            if variant not in (of := found.setdefault(stage.key, {})):
                of[variant] = None
                for one in stage.before():
                    walk(one, variant)

        for cell in self.cells:
            walk(cell.rollout or cell.policy, cell.variant)
        for reading in self.readings:
            walk(reading.stage, reading.variant)
        return {key: tuple(variants) for key, variants in found.items()}
