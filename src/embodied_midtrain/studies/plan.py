"""From a study to the graph of its stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from embodied_midtrain.config import ConfigError, did_you_mean, structure
from embodied_midtrain.recipes.scaling import scaled_config
from embodied_midtrain.studies.graph import STEP, Base, Cell, Given, Plan, Reading, Source, Stage
from embodied_midtrain.studies.stages import AT_HAND, MODELS, check_inputs, kind_of
from embodied_midtrain.studies.study import Call, Measure, Study, merged


def plan(study: Study) -> Plan:
    """The graph of a study.

    Raises:
        ConfigError, ValueError: on stages, inputs, names and settings that cannot be meant: all before any work.
    """
    study.check()
    return _Planner(study).plan()


class _Planner:
    def __init__(self, study: Study) -> None:
        self._study = study
        self._made: dict[str, Source] = {}
        self._open: list[str] = []

    def plan(self) -> Plan:
        study = self._study
        cells: list[Cell] = []
        readings: list[Reading] = []
        for name in study.data:
            # Also what no variant uses must be understood.
            self._data(name)
        for seed in study.training_seeds:
            for name, variant in study.variants.items():
                scratch = study.seed + seed if variant.random_language else None
                base = Base(variant.backbone or study.backbone, scratch)
                scope: dict[str, Source] = {"base": base, "model": base}
                for number, call in enumerate(variant.stages, 1):
                    where = f"variants.{name}.stages[{number - 1}]"
                    scope["model"] = self._call(where, call, scope, seed, f"{name}, seed {seed}")
                    scope[f"stage{number}"] = scope[call.stage] = scope["model"]
                of_model = self._measures(name, seed, scope, "model")
                readings += of_model
                scope |= {reading.measure: reading.stage for reading in of_model}
                for cell in self._cells(name, seed, scope):
                    cells.append(cell)
                    own = {**scope, "policy": cell.policy}
                    readings += self._measures(name, seed, own, "policy", cell)
        return Plan(study, tuple(cells), tuple(readings))

    def _cells(self, variant: str, seed: int, scope: Mapping[str, Source]) -> Iterator[Cell]:
        study, target = self._study, self._study.variants[variant].target
        for benchmark, bench in study.benchmarks.items():
            extra = {slot: _filled(names, benchmark) for slot, names in target.inputs.items()}
            acts = {"chunk": bench.chunk, "executed": bench.executed}
            for head, own in (study.heads or {"": {}}).items():
                settings = merged(merged(merged(acts, bench.settings), own), target.settings)
                call = Call(stage="finetune", inputs={"demos": bench.demos, **extra}, settings=settings)
                label = ", ".join(word for word in (variant, f"seed {seed}", benchmark, head) if word)
                policy = self._call(f"variants.{variant} on {benchmark}", call, scope, seed, label)
                rollout = None
                if not bench.protocol:
                    played = scaled_config("rollout", bench.rollout, study.scale)
                    rollout = Stage("rollout", played, {"actor": policy}, label)
                yield Cell(variant, seed, head, benchmark, policy, rollout)

    def _measures(
        self, variant: str, seed: int, scope: Mapping[str, Source], of: str, cell: Cell | None = None
    ) -> list[Reading]:
        known, found = dict(scope), []
        label = f"{variant}, seed {seed}"
        place = {}
        if cell is not None:
            place = {"head": cell.head, "benchmark": cell.benchmark}
            label = ", ".join([label, *(word for word in place.values() if word)])
        for name, measure in self._study.measures.items():
            if measure.of != of or not _applies(measure, known, self._study):
                continue
            stage = self._call(f"measures.{name}", measure, known, None, label)
            if _nameless(stage):
                continue
            known[name] = stage
            found.append(Reading(variant, seed, name, stage, **place))
        return found

    def _call(self, where: str, call: Call, scope: Mapping[str, Source], seed: int | None, label: str) -> Stage:
        kind = kind_of(call.stage)
        check_inputs(kind, call.inputs, where)
        inputs: dict[str, Source | Mapping[str, Source]] = {}
        for slot, names in call.inputs.items():
            if isinstance(names, list):
                inputs[slot] = {str(name): self._named(str(name), scope, where) for name in names}
            else:
                inputs[slot] = self._named(str(names), scope, where)
        for slot, word in AT_HAND.items():
            if slot in kind.slots and not kind.slots[slot].optional and slot not in inputs:
                inputs[slot] = self._named(word, scope, where)
        if "start" in kind.slots and _is(inputs.get("backbone"), "finetune"):
            inputs.setdefault("start", inputs["backbone"])
        settings = merged(self._study.settings.get(call.stage, {}), call.settings)
        config: Any = structure(kind.config, settings, f"{where}: {call.stage}")
        config = scaled_config(call.stage, config, self._study.scale)
        if any(one.name == "seed" for one in fields(config)):
            config = replace(config, seed=config.seed + self._study.seed + (seed or 0))
        try:
            getattr(config, "check", lambda: None)()
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error
        return Stage(call.stage, config, inputs, label)

    def _named(self, name: str, scope: Mapping[str, Source], where: str) -> Source:
        if name in scope:
            return scope[name]
        if name in self._study.data:
            return self._data(name)
        known = {**scope, **self._study.data}
        raise ConfigError(f"{where}: there is nothing called '{name}'; {did_you_mean(name, known)}")

    def _data(self, name: str) -> Source:
        if name in self._made:
            return self._made[name]
        if name in self._open:
            raise ConfigError(f"data go round in a circle: {' needs '.join([*self._open, name])}")
        entry = self._study.data[name]
        if entry.path:
            given = {one.name: getattr(entry, one.name) for one in fields(Given) if one.name != "name"}
            made: Source = Given(name, **given)
        else:
            self._open.append(name)
            base = Base(self._study.backbone)
            call = Call(stage=entry.stage, inputs=entry.inputs, settings=entry.settings)
            made = self._call(f"data.{name}", call, {"model": base, "base": base}, None, name)
            self._open.pop()
        self._made[name] = made
        return made


def _filled(names: Any, benchmark: str) -> Any:
    if isinstance(names, list):
        return [_filled(name, benchmark) for name in names]
    return str(names).replace("{benchmark}", benchmark)


def _is(source: Any, stage: str) -> bool:
    return isinstance(source, Stage) and source.name == stage


def _applies(measure: Measure, known: Mapping[str, Source], study: Study) -> bool:
    """Whether a variant has what the measure names: stage2 only where there are two, and so on."""
    names = [n for value in measure.inputs.values() for n in (value if isinstance(value, list) else [value])]
    own = {*MODELS, *study.measures}
    return all(name in known for name in names if STEP.fullmatch(str(name)) or name in own)


def _nameless(stage: Stage) -> bool:
    """Whether it reads models by their names, and is given one that has none: a random language model, a control."""
    slots = kind_of(stage.name).slots
    return any(
        slots[slot].kind is str and isinstance(one, Base) and one.random_language is not None
        for slot, given in stage.inputs.items()
        for one in (given.values() if isinstance(given, Mapping) else (given,))
    )
