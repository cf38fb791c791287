"""`emt study --dry-run`: what a study consists of, what its variants share, and what is still to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from embodied_midtrain.studies.calling import House
from embodied_midtrain.studies.engine import states
from embodied_midtrain.studies.graph import Plan
from embodied_midtrain.studies.records import Found, on_record
from embodied_midtrain.studies.results import pathway


def outline(
    whole: Plan, only: tuple[str, ...], house: House, known: Mapping[str, Found] | None = None
) -> dict[str, Any]:
    """What a study consists of and what of it is still to do; nothing is run, and nothing is written.

    Args:
        known: by stage, results that are on record: what only they would need is left out.

    Raises:
        ConfigError: on a variant that the study has not.
    """
    chosen = whole.only(only)
    part = chosen.without(known) if known else chosen
    # If nothing were shared between cells and measures.
    alone = [replace(part, cells=(cell,), readings=()) for cell in part.cells]
    alone += [replace(part, cells=(), readings=(reading,)) for reading in part.readings]
    users, study = part.users(), whole.study
    found = states(house, part.stages())
    rows = [
        {
            "key": stage.key,
            "stage": stage.name,
            "for": stage.label,
            "state": found[stage.key].state,
            "why": found[stage.key].why,
            "variants": list(users[stage.key]),
            "from": [one.key for one in stage.before()],
        }
        for stage in part.stages()
    ]
    return {
        "study": study.name,
        "variants": {name: pathway(study, name) for name in study.variants if not only or name in only},
        "training_seeds": list(study.training_seeds),
        "heads": list(study.heads),
        "benchmarks": {name: bench.where for name, bench in study.benchmarks.items()},
        "calls": sum(len(one.stages()) for one in alone),
        "stages": rows,
        "on_record": len(on_record(chosen, known or {})),
        "to_do": sum(row["state"] != "done" for row in rows),
    }


def print_outline(facts: Mapping[str, Any], to: Console | None = None) -> None:
    to = to or Console()
    several = {"variants": facts["variants"], "seeds": facts["training_seeds"], "heads": facts["heads"]}
    sizes = {**several, "benchmarks": facts["benchmarks"]}
    words = [f"{len(some)} {name if len(some) > 1 else name[:-1]}" for name, some in sizes.items() if some]
    to.print(Text(f"{facts['study']}: {' x '.join(words)} ({', '.join(facts['benchmarks'].values())})"), soft_wrap=True)
    table = Table()
    table.add_column("stage")
    for name in ("stages", "shared", "done", "to do"):
        table.add_column(name, justify="right")
    rows = facts["stages"]
    for name in dict.fromkeys(row["stage"] for row in rows):
        own = [row for row in rows if row["stage"] == name]
        done = sum(row["state"] == "done" for row in own)
        shared = sum(len(row["variants"]) > 1 for row in own)
        table.add_row(name, *(str(n) for n in (len(own), shared, done, len(own) - done)))
    to.print(table)
    for name, words in facts["variants"].items():
        needed = [row for row in rows if name in row["variants"]]
        alone = sum(len(row["variants"]) == 1 for row in needed)
        todo = sum(row["state"] != "done" for row in needed)
        counts = f"{len(needed)} stages, {alone} its own, {todo} to do"
        to.print(Text(f"{name}: {' → '.join(words)}; {counts}"), soft_wrap=True)
    failed = [row for row in rows if row["state"] == "failed"]
    for row in failed:
        to.print(Text(f"failed before: {row['key']} ({row['for']}): {row['why']}", "red"), soft_wrap=True)
    if facts["on_record"]:
        to.print(Text(f"{facts['on_record']} results are on record; what only they would need is not counted."))
    saved = facts["calls"] - len(rows)
    to.print(Text(f"{len(rows)} stages, {facts['to_do']} to do; without sharing there would be {saved} more."))
