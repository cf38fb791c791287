"""From a study's folders to its document: success, tests against the baseline, what was measured beside it."""

from __future__ import annotations

import platform
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

from embodied_midtrain import __version__
from embodied_midtrain.artifacts import Artifact, StageError, fingerprint_of, read_json, to_plain
from embodied_midtrain.benchmarks.comparison import Record, against
from embodied_midtrain.benchmarks.rollout import read_episodes
from embodied_midtrain.intervals import corrected
from embodied_midtrain.recipes.meter import METER
from embodied_midtrain.recipes.summarise import machine
from embodied_midtrain.recipes.vla_eval import COMMANDS, read_played
from embodied_midtrain.report import study as doc
from embodied_midtrain.report.summary import Provenance, StageTime
from embodied_midtrain.studies.calling import House
from embodied_midtrain.studies.engine import NOT_RUN, State
from embodied_midtrain.studies.figures import figure
from embodied_midtrain.studies.graph import Cell, Plan, Stage
from embodied_midtrain.studies.records import Found
from embodied_midtrain.studies.study import OnTarget, Study

Column = tuple[str, str, str]
"""A variant, a benchmark and a head."""


def summarise(
    house: House, plan: Plan, states: Mapping[str, State], command: str, kept: Mapping[str, Found] | None = None
) -> doc.StudySummary:
    """What a study has found so far.

    Args:
        plan: the whole study, whatever part of it was run.
        states: of all of its stages.
        kept: by stage, results on record that were not found in this folder.
    """
    study, kept = plan.study, kept or {}
    needed = plan.without(kept)
    records, waiting = _played(house, plan, states, kept)
    late = {cell.variant for cell in waiting}
    policies = {name: [_ended(c, states, kept) for c in plan.cells if c.variant == name] for name in study.variants}
    variants = tuple(_variant(needed, name, states, name in late, ended) for name, ended in policies.items())
    comparisons, unlike = _comparisons(study, records)
    return doc.StudySummary(
        name=study.name,
        about=study.about,
        seed=study.seed,
        training_seeds=study.training_seeds,
        created=datetime.now(UTC).replace(microsecond=0).isoformat(),
        machine=machine(),
        state="done" if all(v.state == "done" for v in variants) else "partial",
        baseline=study.reference,
        scale=study.scale,
        benchmarks=tuple(doc.StudyBenchmark(n, b.title or n, b.where) for n, b in study.benchmarks.items()),
        heads=tuple(study.heads),
        variants=variants,
        cells=tuple(_cell(*key, record) for key, record in records.items() if record.episodes),
        comparisons=comparisons,
        figures=_figures(house, plan, states, kept),
        stages=_stages(house, plan, states, needed),
        notes=(*_on_record(kept), *_notes(house, plan, states), *unlike),
        commands=tuple(line for c in waiting for line in (house.vla_eval(c.name) / COMMANDS).read_text().splitlines()),
        provenance=_provenance(house, plan, states, command),
    )


def _done(stage: Stage, states: Mapping[str, State]) -> bool:
    return states.get(stage.key, NOT_RUN).state == "done"


def _played(
    house: House, plan: Plan, states: Mapping[str, State], kept: Mapping[str, Found]
) -> tuple[dict[Column, Record], list[Cell]]:
    """What has been played, and what vla-eval has still to play."""
    records: dict[Column, Record] = {}
    waiting = []
    for cell in plan.cells:
        record = records.setdefault((cell.variant, cell.benchmark, cell.head), Record())
        if cell.rollout is not None and cell.rollout.key in kept:
            record.add(kept[cell.rollout.key].played(), cell.seed)
            continue
        if not _ended(cell, states, kept):
            continue
        if cell.rollout is not None:
            record.add(read_episodes(Artifact.open(house.of(cell.rollout), "rollout")), cell.seed)
            continue
        found = read_played(house.vla_eval(cell.name), house.of(cell.policy))
        if found.complete:
            record.add(found.episodes, cell.seed, found.lengths)
        else:
            waiting.append(cell)
    return records, waiting


def _ended(cell: Cell, states: Mapping[str, State], kept: Mapping[str, Found]) -> bool:
    """Whether it was played, or where vla-eval plays, can be."""
    last = cell.rollout or cell.policy
    return last.key in kept or _done(last, states)


def _variant(
    plan: Plan, name: str, states: Mapping[str, State], waits: bool, ended: Sequence[bool]
) -> doc.StudyVariant:
    """How one variant stands.

    Args:
        plan: what is not on record.
        ended: which of its policies are.
    """
    study, of = plan.study, plan.only((name,)).stages()
    stood = [states.get(stage.key, NOT_RUN) for stage in of]
    failed = [(stage, one) for stage, one in zip(of, stood, strict=True) if one.state == "failed"]
    state: doc.VariantState = "done"
    if failed:
        state = "failed"
    elif any(one.state != "done" for one in stood):
        state = "partly run" if any(ended) else "not run"
    elif waits:
        state = "waiting"
    why = "; ".join(f"{stage.name} ({stage.label}): {one.why}" for stage, one in failed)
    if state == "partly run":
        why = f"{sum(ended)} of {len(ended)} policies"
    variant = study.variants[name]
    compared = study.against(name)
    return doc.StudyVariant(
        name=name,
        title=study.title(name),
        pathway=tuple(pathway(study, name)),
        state=state,
        why=why,
        control=variant.random_language,
        against=compared if compared != name else "",
    )


def pathway(study: Study, name: str) -> list[str]:
    """A variant's stages in words."""
    variant = study.variants[name]
    words = [variant.backbone or study.backbone]
    if variant.random_language:
        words[0] += ", random language model"
    words += [_in_words(call.stage, call.inputs, call.settings) for call in variant.stages]
    if variant.target != OnTarget():
        words.append(_in_words("finetune on the target", variant.target.inputs, variant.target.settings))
    return words


def _in_words(stage: str, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    named = [" + ".join(map(str, n)) if isinstance(n, list) else str(n) for n in inputs.values()]
    with_what = f", {' and '.join(dict.fromkeys(named))}" if named else ""
    changed = ", ".join(f"{key} {value}" for key, value in _flat(settings))
    return f"{stage}{with_what}{f' ({changed})' if changed else ''}"


def _flat(settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in settings.items():
        rows += [(f"{key}.{k}", v) for k, v in _flat(value)] if isinstance(value, Mapping) else [(key, value)]
    return rows


def _cell(variant: str, benchmark: str, head: str, record: Record) -> doc.StudyCell:
    seeds = record.by_seed()
    return doc.StudyCell(
        variant=variant,
        benchmark=benchmark,
        head=head,
        all=record.all(),
        tasks=record.tasks(),
        by_seed=_named(seeds),
        spread=statistics.stdev(seeds.values()) if len(seeds) > 1 else None,
        length=record.length(),
    )


def _named(by_seed: Mapping[int, float]) -> dict[str, float]:
    """Keys as JSON has them."""
    return {str(seed): value for seed, value in by_seed.items()}


def _comparisons(
    study: Study, records: Mapping[Column, Record]
) -> tuple[tuple[doc.StudyComparison, ...], tuple[str, ...]]:
    """Each variant against its baseline, corrected over the whole study; and why there is none where episodes did not
    begin alike."""
    tests, unlike = [], []
    for (variant, benchmark, head), record in records.items():
        other = study.against(variant)
        beside = records[other, benchmark, head]
        # None in common: seeds that are still to come.
        if other == variant or record.episodes.keys().isdisjoint(beside.episodes):
            continue
        try:
            found, by_seed = against(record, beside, study.title(variant), study.title(other))
        except StageError as error:
            unlike.append(str(error))
        else:
            tests.append(((variant, other, benchmark, head), found, by_seed))
    controls = {n for n, ((variant, *_), *_) in enumerate(tests) if study.variants[variant].random_language}
    rows = [
        doc.StudyComparison(
            *names,
            pairs=one.pairs,
            difference=one.difference,
            low=one.low,
            high=one.high,
            p=one.p,
            p_adjusted=one.p_adjusted,
            outcome=one.outcome,
            verdict=one.verdict(study.title(names[0]), study.title(names[1])),
            by_seed=_named(by_seed),
        )
        for (names, _, by_seed), one in zip(tests, corrected([found for _, found, _ in tests], controls), strict=True)
    ]
    return tuple(rows), tuple(unlike)


def _figures(
    house: House, plan: Plan, states: Mapping[str, State], kept: Mapping[str, Found]
) -> tuple[doc.StudyFigure, ...]:
    found: dict[tuple[str, str, str, str, str], dict[str, float]] = {}
    for reading in plan.readings:
        on_record = kept.get(reading.stage.key)
        if on_record is None and not _done(reading.stage, states):
            continue
        for name, where in plan.study.measures[reading.measure].figures.items():
            value = on_record.figures.get(where) if on_record else figure(house.of(reading.stage), where)
            if value is not None:
                key = (reading.measure, name, reading.variant, reading.benchmark, reading.head)
                found.setdefault(key, {})[str(reading.seed)] = value
    return tuple(
        doc.StudyFigure(measure, name, variant, by_seed, statistics.fmean(by_seed.values()), benchmark, head)
        for (measure, name, variant, benchmark, head), by_seed in found.items()
    )


def _on_record(kept: Mapping[str, Found]) -> tuple[str, ...]:
    """How much of this was found elsewhere, and where."""
    where = Counter((one.code, one.machine) for one in kept.values())
    return tuple(
        f"{count} results are not of this folder but on record: version {code or 'unknown'}, {machine or 'somewhere'}."
        for (code, machine), count in where.items()
    )


def _stages(house: House, plan: Plan, states: Mapping[str, State], needed: Plan) -> tuple[doc.StudyStage, ...]:
    """All that were done, or would be."""
    users, rows = plan.users(), []
    asked = needed.users()
    for stage in plan.stages():
        if stage.key not in asked and not _done(stage, states):
            # What it was for is on record.
            continue
        times = house.times(stage) / METER
        row = read_json(times).get(stage.key, {}) if times.is_file() else {}
        stood = states.get(stage.key, NOT_RUN)
        time = StageTime(stage.key, row.get("seconds", 0.0), row.get("peak"), stood.state, stood.why)
        rows.append(doc.StudyStage(time, stage.name, stage.label, users[stage.key]))
    return tuple(rows)


def _notes(house: House, plan: Plan, states: Mapping[str, State]) -> tuple[str, ...]:
    """Of compositions and mid-trainings: what came again, and how often."""
    notes = []
    for stage in plan.stages():
        if not _done(stage, states) or stage.name not in ("compose", "midtrain"):
            continue
        counts = Artifact.open(house.of(stage)).counts
        again = {n: row for n, row in counts.get("shares", counts.get("composition", {})).items() if row["repeated"]}
        if again:
            # A source's: how often each of its samples came, on average.
            often = {name: row["drawn"] / (row["drawn"] - row["repeated"]) for name, row in again.items()}
            most = max(often, key=lambda name: often[name])
            drawn = sum(row["drawn"] for row in again.values())
            different = drawn - sum(row["repeated"] for row in again.values())
            notes.append(
                f"{stage.label} ({stage.name}): {different} samples were drawn {drawn} times, "
                f"most often those of {most}: {often[most]:.1f} times each."
            )
    return tuple(notes)


def _provenance(house: House, plan: Plan, states: Mapping[str, State], command: str) -> Provenance:
    made = [Artifact.open(house.of(stage)) for stage in plan.stages() if _done(stage, states)]
    return Provenance(
        code=__version__,
        python=platform.python_version(),
        packages=made[-1].manifest["packages"] if made else {},
        seeds={"study": plan.study.seed},
        fingerprints={**{one.path.name: one.fingerprint for one in made}, "study": fingerprint_of(plan.study)},
        backbone=plan.study.backbone,
        recipe=yaml.safe_dump(to_plain(plan.study), sort_keys=False, allow_unicode=True),
        command=command,
    )
