"""`emt run` and `emt quickstart`: the stages of a recipe, one after the other; a second call goes on.

Each stage is resumable by itself (`artifacts.open_stage`), so going on means walking the same way again.
"""

from __future__ import annotations

import gc
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from embodied_midtrain.allocation import release_free_blocks
from embodied_midtrain.config import parse
from embodied_midtrain.progress import console
from embodied_midtrain.recipes.inputs import check_inputs, with_selected_pool
from embodied_midtrain.recipes.layout import Layout
from embodied_midtrain.recipes.meter import Meter
from embodied_midtrain.recipes.recipe import Recipe, load_recipe, named_recipes
from embodied_midtrain.recipes.scaling import scaled
from embodied_midtrain.recipes.steps import Run, stages
from embodied_midtrain.recipes.summarise import summarise
from embodied_midtrain.report.page import report
from embodied_midtrain.report.summary import Summary, save_summary
from embodied_midtrain.report.terminal import print_summary


def run_recipe(recipe: Recipe, out: Path, *, until: str | None = None, command: str = "") -> Summary:
    """Run a recipe's stages into folder `out`, then write `summary.json` and the report.

    Args:
        until: the name of the last stage to run; the summary and the report come in any case.
        command: what was typed, for the record.

    Raises:
        StageError: as the stage that failed; what was finished before is kept, and the summary says what failed.
        ArtifactMismatch: where `out` holds a run of another recipe.
        StageError: before the first stage, where data that the recipe names are missing.
        ValueError: on an `until` that is no stage.
    """
    recipe.check()
    layout, factor = Layout(out, recipe.selection_from), recipe.scale
    recipe = scaled(with_selected_pool(recipe))
    out.mkdir(parents=True, exist_ok=True)
    check_inputs(recipe, layout)
    run = Run(recipe, layout, Meter(out), factor)
    rows = stages(run)
    names = [name for name, _ in rows]
    if until is not None and until not in names:
        raise ValueError(f"there is no stage {until!r}; the stages of this recipe are: {', '.join(names)}")
    try:
        for number, (name, work) in enumerate(rows):
            if not run.meter.done(name):
                console.print(f"[bold]{number + 1}/{len(rows)}[/bold] {name}")
                with run.meter.stage(name):
                    work()
                gc.collect()
                release_free_blocks()
            else:
                work()
            if name == until:
                break
    finally:
        run.loaded = None
        summary = summarise(layout, recipe, run.meter.times(names), command, factor)
        save_summary(out, summary)
    report(layout.report, run=out)
    print_summary(summary, layout.report / "report.html")
    return summary


def _command(prog: str) -> str:
    return shlex.join([prog, *sys.argv[2:]])


@dataclass(frozen=True)
class RunOptions:
    """Where a recipe runs, and how far."""

    out: Path | None = None
    """Folder of the run; by default runs/NAME, or runs/NAME-scale-FACTOR."""
    until: str | None = None
    """Last stage to run, such as "gap" or "finetune selected"."""


def run_command(arguments: Sequence[str]) -> None:
    """Handle `emt run RECIPE [options]`: the file is read first, its values are the options' defaults."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_run_help())
        return
    _run(arguments[0], arguments[1:], f"emt run {arguments[0]}")


def quickstart_command(arguments: Sequence[str]) -> None:
    """Handle `emt quickstart [options]`."""
    _run("quickstart", arguments, "emt quickstart")


def _run(name: str, rest: Sequence[str], prog: str) -> None:
    recipe = load_recipe(name)

    def call(
        recipe: Annotated[Recipe, tyro.conf.arg(name="")] = recipe,
        options: Annotated[RunOptions, tyro.conf.arg(name="")] = RunOptions(),
    ) -> None:
        # A rehearsal is not what the whole run could go on from.
        usual = recipe.name if recipe.scale == 1 else f"{recipe.name}-scale-{recipe.scale:g}"
        run_recipe(recipe, options.out or Path("runs") / usual, until=options.until, command=_command(prog))

    call.__doc__ = f"""Run the stages of a recipe; the same command goes on after an interruption.

    Every setting of the recipe can be changed here.

    Examples:
        {prog} --until gap
        {prog} --out runs/second --seed 1 --select.k 2000
        {prog} --scale 0.01
    """
    parse(call, rest, prog, prefixes=True)


def _run_help() -> str:
    lines = [
        "usage: emt run RECIPE [--out DIR] [--until STAGE] [settings]",
        "",
        "Run the stages of a recipe: a YAML file, or the name of one that comes with the package:",
        *(f"  {name}" for name in named_recipes()),
        "",
        "A second call goes on where the first one stopped. A recipe's settings and their help:",
        "  emt run RECIPE --help",
        "",
        "examples:",
        "  emt run quickstart --until gap",
        "  emt run my-recipe.yaml --out runs/second --seed 1",
        "  emt run my-recipe.yaml --data.pool data/llava.json --data.images data/images",
        "  emt run embodied_midtrain_internvl3_5_1b --data.folder data --scale 0.001",
    ]
    return "\n".join(lines)
