"""`emt study`: all stages that a study needs, each once; a second call goes on, a new variant runs only what is new."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.text import Text

from embodied_midtrain.artifacts import Skips, StageError, write_atomic
from embodied_midtrain.episodes import Robots
from embodied_midtrain.progress import console
from embodied_midtrain.recipes.vla_eval import write_orders
from embodied_midtrain.report.page import PAGE
from embodied_midtrain.report.study import STUDY, StudySummary, save_study
from embodied_midtrain.report.study_page import study_report
from embodied_midtrain.report.study_table import markdown
from embodied_midtrain.report.study_terminal import print_study
from embodied_midtrain.studies.calling import House, print_of
from embodied_midtrain.studies.engine import Hands, Here, State, states, work
from embodied_midtrain.studies.graph import Given, Plan, Stage
from embodied_midtrain.studies.outline import outline, print_outline
from embodied_midtrain.studies.plan import plan
from embodied_midtrain.studies.processes import Processes
from embodied_midtrain.studies.records import Found, on_record, read_records, record
from embodied_midtrain.studies.results import summarise
from embodied_midtrain.studies.stages import OPENERS, kind_of
from embodied_midtrain.studies.study import Study, load_study, named_studies

TABLES = "study.md"


def run_study(
    study: Study,
    out: Path,
    *,
    only: tuple[str, ...] = (),
    hands: Hands | None = None,
    command: str = "",
    records: Path | None = None,
) -> StudySummary:
    """Do the stages of a study into folder `out`, then write study.json and study.md.

    Args:
        only: these variants alone; the document shows the others as they are.
        hands: who does the stages; by default this process.
        command: what was typed, for the record.
        records: file of results; what stands there is not done again, what is found here is added.

    Raises:
        ConfigError, ValueError: before the first stage, where the study cannot be meant.
        StageError: before the first stage, where given data are missing.
        DiskFull: as it came; what was finished is kept.
    """
    whole = plan(study)
    house = house_of(study, out)
    known = _known(whole, records)
    part = whole.only(only).without(known)
    check_given(house, part)
    stages = part.stages()

    def told(stage: Stage, state: State | None, behind: int) -> None:
        if state is not None and state.state == "done":
            return
        line = Text(f"{behind + (state is None)}/{len(stages)} ", "bold").append(f"{stage.name} {stage.label}", "none")
        line.append(f"  {stage.key}", "dim")
        if state is not None:
            line.append(f" failed: {state.why}" if state.state == "failed" else f" left out: needs {state.why}", "red")
        console.print(line, soft_wrap=True)

    found: dict[str, State] = {}
    try:
        found = work(house, stages, hands or Here(), told)
    finally:
        found = states(house, whole.stages()) | found
        kept = _kept(house, whole, found, known, records)
        for cell in whole.cells:
            if cell.rollout is None and found[cell.policy.key].state == "done":
                bench = study.benchmarks[cell.benchmark]
                write_orders(house.vla_eval(cell.name), house.of(cell.policy), bench, study.scale)
        summary = _written(out, summarise(house, whole, found, command, kept))
    return summary


def study_so_far(study: Study, out: Path, command: str = "", records: Path | None = None) -> StudySummary:
    """Write study.json and study.md of what is done in `out` or stands in `records`, and do nothing more.

    Raises:
        ConfigError, ValueError: where the study cannot be meant.
        StageError: where given data are missing, so that it cannot be known what is done with them.
    """
    whole, house = plan(study), house_of(study, out)
    known = _known(whole, records)
    check_given(house, whole.without(known))
    found = states(house, whole.stages())
    kept = _kept(house, whole, found, known, records)
    return _written(out, summarise(house, whole, found, command, kept))


def _known(whole: Plan, records: Path | None) -> dict[str, Found]:
    """What of this study is on record.

    Raises:
        StageError: on a line that is no record.
    """
    if records is None:
        return {}
    if not records.exists():
        console.print(Text(f"{records} is new: nothing is on record yet"), soft_wrap=True)
    return on_record(whole, read_records(records))


def _kept(
    house: House, whole: Plan, found: Mapping[str, State], known: Mapping[str, Found], records: Path | None
) -> dict[str, Found]:
    """Put what was done here on record; what is left is on record alone."""
    done = {key for key, state in found.items() if state.state == "done"}
    if records is not None and (added := record(records, house, whole, known, done)):
        console.print(Text(f"{added} results added to {records}"), soft_wrap=True)
    return {key: one for key, one in known.items() if key not in done}


def _written(out: Path, summary: StudySummary) -> StudySummary:
    save_study(out, summary)
    write_atomic(out / TABLES, markdown(summary))
    return summary


def house_of(study: Study, out: Path) -> House:
    return House(out.resolve(), (study.folder or Path()).resolve())


def check_given(house: House, part: Plan) -> None:
    """Open all given data before the first stage.

    Raises:
        StageError: with everything that is missing, and the variants that would need it; where a policy of the data
            could not act on their benchmark.
    """
    users = part.users()
    missing: dict[str, list[str]] = {}
    for stage in part.stages():
        for slot, given in _given(stage):
            try:
                print_of(house, given, kind_of(stage.name).slots[slot].kind)
            except StageError as error:
                missing.setdefault(str(error), []).extend(users[stage.key])
    if missing:
        lines = [f"{error} (for: {', '.join(dict.fromkeys(variants))})" for error, variants in missing.items()]
        raise StageError("\n".join([*lines, "--only names the variants to run, --folder where relative paths start."]))
    for name, demos in {cell.benchmark: cell.policy.inputs["demos"] for cell in part.cells}.items():
        if isinstance(demos, Given):
            robots: Robots = OPENERS[Robots](house.lying(demos, Skips()))
            part.study.benchmarks[name].check_actions(robots.spec, f"data.{demos.name}")


def _given(stage: Stage) -> Iterator[tuple[str, Given]]:
    for slot, several in stage.inputs.items():
        for source in several.values() if isinstance(several, Mapping) else (several,):
            if isinstance(source, Given):
                yield slot, source


@contextmanager
def _hands(engine: str, processes: int, address: str, gpus: float) -> Iterator[Hands]:
    if engine == "ray":
        from embodied_midtrain.studies.cluster import on_ray

        with on_ray(address, gpus) as cluster:
            yield cluster
    elif processes > 1:
        several = Processes(processes)
        try:
            yield several
        finally:
            several.close()
    else:
        yield Here()


def study_command(
    study: Annotated[str, tyro.conf.Positional],
    out: Path | None = None,
    only: tuple[str, ...] = (),
    dry_run: bool = False,
    so_far: bool = False,
    as_json: bool = False,
    folder: Path | None = None,
    seeds: tuple[int, ...] = (),
    scale: float | None = None,
    records: Path | None = None,
    processes: int = 1,
    engine: Literal["local", "ray"] = "local",
    address: str = "",
    gpus: float = -1.0,
) -> None:
    """Run a study: variants x seeds x heads x benchmarks as one job.

    What variants share is computed once. A second call goes on; a variant that was added to the file runs only what is
    new. A stage that fails takes down the variants that need it, the others finish, and the exit status is 1.

    Examples:
        emt study rethinking_domains_compact --dry-run
        emt study my-study.yaml --out runs/mine
        emt study my-study.yaml --only baseline grounding --seeds 0
        emt study my-study.yaml --so-far
        emt study my-study.yaml --seeds 1 --records results/my-study.jsonl
        emt study my-study.yaml --scale 0.02 --out runs/rehearsal
        emt study my-study.yaml --engine ray --address auto

    Args:
        study: a YAML file, or the name of one that comes with the package: {names}.
        out: folder of the study; by default runs/NAME, or runs/NAME-scale-FACTOR.
        only: these variants alone, with what they need.
        dry_run: say what there is to do, and do nothing.
        so_far: write the tables and the page of what is done, and do nothing more.
        as_json: print JSON in place of tables.
        folder: where relative paths of given data start; by default as the file says, else the working folder.
        seeds: training seeds in place of the file's.
        records: file of results, a line for each rollout and measure (JSONL). What stands there is not done again, what
            is found here is added; files of several machines are joined by cat.
        scale: factor on every count: a small one checks a long study from end to end.
        processes: stages at a time on this machine, each with its share of the cores.
        engine: this machine, or a Ray cluster whose nodes all reach the study's folder.
        address: of the Ray cluster (HOST:PORT, or auto); none: RAY_ADDRESS, else a Ray of its own on this machine.
        gpus: of the cluster, for each stage; -1: one where it has any.
    """
    given = load_study(study)
    given = replace(
        given,
        folder=given.folder if folder is None else folder,
        training_seeds=seeds or given.training_seeds,
        scale=given.scale if scale is None else scale,
    )
    usual = given.name if given.scale == 1 else f"{given.name}-scale-{given.scale:g}"
    out = out or Path("runs") / usual
    if dry_run:
        whole = plan(given)
        facts = outline(whole, only, house_of(given, out), _known(whole, records))
        print(json.dumps(facts, indent=2)) if as_json else print_outline(facts)
        return
    command = shlex.join(["emt", *sys.argv[1:]])
    if so_far:
        found = study_so_far(given, out, command, records)
    else:
        with _hands(engine, processes, address, gpus) as hands:
            found = run_study(given, out, only=only, hands=hands, command=command, records=records)
    page = study_report(out / "report", study=out).file(PAGE)
    if as_json:
        print((out / STUDY).read_text())
    else:
        print_study(found, page)
    wanted = [row for row in found.stages if not only or set(only) & set(row.variants)]
    failed = [f"{row.time.name} ({row.label}): {row.time.note}" for row in wanted if row.time.state == "failed"]
    if failed:
        raise StageError(
            f"{len(failed)} failed: {'; '.join(failed)}. What does not need them is done; mend the cause, then give "
            "the command again."
        )


study_command.__doc__ = str(study_command.__doc__).replace("{names}", ", ".join(named_studies()))
