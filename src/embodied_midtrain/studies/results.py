"""From a study's folders to its document: success, tests against the baseline, what was measured beside it."""

from __future__ import annotations

import math
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import yaml

from embodied_midtrain import __version__
from embodied_midtrain.artifacts import Artifact, StageError, fingerprint_of, read_json, to_plain
from embodied_midtrain.benchmarks.comparison import against
from embodied_midtrain.benchmarks.rollout import EpisodeResult, TaskResult, read_episodes
from embodied_midtrain.intervals import holm
from embodied_midtrain.recipes.meter import METER
from embodied_midtrain.recipes.summarise import machine
from embodied_midtrain.recipes.vla_eval import COMMANDS, read_played
from embodied_midtrain.report import study as doc
from embodied_midtrain.report.summary import Provenance, StageTime
from embodied_midtrain.studies.calling import House
from embodied_midtrain.studies.engine import NOT_RUN, State
from embodied_midtrain.studies.graph import Cell, Plan, Stage
from embodied_midtrain.studies.study import OnTarget, Study

LEVEL = 0.05


@dataclass(frozen=True)
class Played:
    """The episodes of one cell's seeds: by task, state and training seed."""

    episodes: Mapping[tuple[str, int, int], EpisodeResult]
    lengths: Sequence[float]


def summarise(house: House, plan: Plan, states: Mapping[str, State], command: str) -> doc.StudySummary:
    """What a study has found so far.

    Args:
        plan: the whole study, whatever part of it was run.
        states: of all of its stages.
    """
    study = plan.study
    played = {(c.variant, c.benchmark, c.head): _played(house, plan, c, states) for c in plan.cells}
    waiting = {c.variant: _orders(house, c) for c in plan.cells if _waits(house, c, states)}
    variants = tuple(_variant(plan, name, states, name in waiting) for name in study.variants)
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
        cells=tuple(_cell(*key, found) for key, found in played.items() if found.episodes),
        comparisons=_comparisons(study, played),
        figures=_figures(house, plan, states),
        stages=_stages(house, plan, states),
        notes=_notes(house, plan, states),
        commands=tuple(line for c in plan.cells if _waits(house, c, states) for line in _orders(house, c)),
        provenance=_provenance(house, plan, states, command),
    )


def _done(stage: Stage, states: Mapping[str, State]) -> bool:
    return states.get(stage.key, NOT_RUN).state == "done"


def _waits(house: House, cell: Cell, states: Mapping[str, State]) -> bool:
    """Whether vla-eval has still to play it."""
    if cell.rollout is not None or not _done(cell.policy, states):
        return False
    return not read_played(house.vla_eval(cell.name), house.of(cell.policy)).complete


def _orders(house: House, cell: Cell) -> list[str]:
    path = house.vla_eval(cell.name) / COMMANDS
    return path.read_text().splitlines() if path.is_file() else []


def _played(house: House, plan: Plan, wanted: Cell, states: Mapping[str, State]) -> Played:
    rows: dict[tuple[str, int, int], EpisodeResult] = {}
    lengths: list[float] = []
    for cell in plan.cells:
        if (cell.variant, cell.benchmark, cell.head) != (wanted.variant, wanted.benchmark, wanted.head):
            continue
        if not _done(cell.rollout or cell.policy, states):
            continue
        if cell.rollout is not None:
            episodes: Sequence[EpisodeResult] = read_episodes(Artifact.open(house.of(cell.rollout), "rollout"))
        else:
            found = read_played(house.vla_eval(cell.name), house.of(cell.policy))
            episodes = found.episodes if found.complete else ()
            lengths += found.lengths if found.complete else ()
        rows |= {(e.task, e.state, cell.seed): e for e in episodes}
    return Played(rows, lengths)


def _variant(plan: Plan, name: str, states: Mapping[str, State], waits: bool) -> doc.StudyVariant:
    study, of = plan.study, plan.only((name,)).stages()
    stood = [states.get(stage.key, NOT_RUN) for stage in of]
    failed = [(stage, one) for stage, one in zip(of, stood, strict=True) if one.state == "failed"]
    state: doc.VariantState = "done"
    if failed:
        state = "failed"
    elif any(one.state != "done" for one in stood):
        state = "not run"
    elif waits:
        state = "waiting"
    variant = study.variants[name]
    compared = study.against(name)
    return doc.StudyVariant(
        name=name,
        title=study.title(name),
        pathway=tuple(pathway(study, name)),
        state=state,
        why="; ".join(f"{stage.name} ({stage.label}): {one.why}" for stage, one in failed),
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


def _cell(variant: str, benchmark: str, head: str, played: Played) -> doc.StudyCell:
    rows = played.episodes
    by_seed = _by_seed({key: float(e.success) for key, e in rows.items()})
    return doc.StudyCell(
        variant=variant,
        benchmark=benchmark,
        head=head,
        all=_share([e.success for e in rows.values()]),
        tasks={
            task: _share([e.success for (of, *_), e in rows.items() if of == task])
            for task in dict.fromkeys(task for task, *_ in rows)
        },
        by_seed=by_seed,
        spread=statistics.stdev(by_seed.values()) if len(by_seed) > 1 else None,
        length=sum(played.lengths) / len(played.lengths) if played.lengths else None,
    )


def _share(outcomes: Sequence[bool]) -> doc.Share:
    return doc.Share(**asdict(TaskResult.of(outcomes)))


def _by_seed(values: Mapping[tuple[str, int, int], float]) -> dict[str, float]:
    seeds = dict.fromkeys(seed for *_, seed in values)
    return {str(seed): statistics.fmean(v for (*_, of), v in values.items() if of == seed) for seed in seeds}


def _comparisons(study: Study, played: Mapping[tuple[str, str, str], Played]) -> tuple[doc.StudyComparison, ...]:
    rows: list[doc.StudyComparison] = []
    for (variant, benchmark, head), found in played.items():
        other = study.against(variant)
        beside = played[other, benchmark, head]
        if other == variant or not found.episodes or not beside.episodes:
            continue
        try:
            pairs, one = against(found.episodes, beside.episodes, study.title(variant), study.title(other))
        except StageError:
            # Nothing in common yet: seeds that are still to come.
            continue
        differences = {key: float(found.episodes[key].success) - float(beside.episodes[key].success) for key in pairs}
        facts = {name: getattr(one, name) for name in ("difference", "low", "high", "p", "outcome", "verdict")}
        rows.append(
            doc.StudyComparison(
                variant=variant,
                against=other,
                benchmark=benchmark,
                head=head,
                pairs=len(pairs),
                p_adjusted=one.p,
                by_seed=_by_seed(differences),
                **facts,
            )
        )
    return corrected(study, rows)


def corrected(study: Study, rows: list[doc.StudyComparison]) -> tuple[doc.StudyComparison, ...]:
    """With Holm's p over all tests of candidates; a control asks another question, of the benchmark."""
    family = [n for n, row in enumerate(rows) if not study.variants[row.variant].random_language]
    for n, p in zip(family, holm([rows[n].p for n in family]), strict=True):
        row = rows[n]
        verdict = row.verdict
        if len(family) > 1:
            verdict += f" Over all {len(family)} tests of this study (Holm): p = {p:.2g}"
            lost = row.outcome != "cannot tell" and p >= LEVEL
            verdict += ", no finding any more." if lost else "."
        outcome = row.outcome if p < LEVEL else "cannot tell"
        rows[n] = replace(row, p_adjusted=p, outcome=outcome, verdict=verdict)
    return tuple(rows)


def _figures(house: House, plan: Plan, states: Mapping[str, State]) -> tuple[doc.StudyFigure, ...]:
    found: dict[tuple[str, str, str, str, str], dict[str, float]] = {}
    for reading in plan.readings:
        if not _done(reading.stage, states):
            continue
        for name, where in plan.study.measures[reading.measure].figures.items():
            value = _figure(house, reading.stage, where)
            if value is not None:
                key = (reading.measure, name, reading.variant, reading.benchmark, reading.head)
                found.setdefault(key, {})[str(reading.seed)] = value
    return tuple(
        doc.StudyFigure(measure, name, variant, by_seed, statistics.fmean(by_seed.values()), benchmark, head)
        for (measure, name, variant, benchmark, head), by_seed in found.items()
    )


def _figure(house: House, stage: Stage, where: str) -> float | None:
    """FILE:KEY.KEY; keys of lists are numbers, negative ones from the end. None where there is no number."""
    file, _, path = where.partition(":")
    value = read_json(house.of(stage) / file)
    try:
        for key in path.split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]
        number = float(value)
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _stages(house: House, plan: Plan, states: Mapping[str, State]) -> tuple[doc.StudyStage, ...]:
    users, rows = plan.users(), []
    for stage in plan.stages():
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
        for name, row in counts.get("shares", counts.get("composition", {})).items():
            different = row["drawn"] - row["repeated"]
            if row["repeated"]:
                notes.append(
                    f"{stage.label} ({stage.name}): {different} samples of {name} were drawn {row['drawn']} times, "
                    f"each {row['drawn'] / different:.1f} times on average."
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
