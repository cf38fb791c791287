"""`emt run` and `emt quickstart`: the stages of a recipe, one after the other; a second call goes on.

Each stage is resumable by itself (`artifacts.open_stage`), so going on means walking the same way again.
"""

from __future__ import annotations

import gc
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from embodied_midtrain.allocation import release_free_blocks
from embodied_midtrain.artifacts import Artifact, Skips
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.benchmarks.demos import record_demos
from embodied_midtrain.benchmarks.rollout import rollout
from embodied_midtrain.config import parse
from embodied_midtrain.diagnostics.audit import audit
from embodied_midtrain.diagnostics.given import Given
from embodied_midtrain.features.extract import embed
from embodied_midtrain.gap.measure import measure_gap, source_groups
from embodied_midtrain.midtraining.midtrain import midtrain
from embodied_midtrain.policies.finetune import finetune
from embodied_midtrain.policies.opening import load_actor
from embodied_midtrain.progress import console
from embodied_midtrain.proximity.compare import compare
from embodied_midtrain.proximity.score import score
from embodied_midtrain.proximity.select import select
from embodied_midtrain.proximity.selectors import GIVEN
from embodied_midtrain.recipes.layout import Layout
from embodied_midtrain.recipes.meter import Meter
from embodied_midtrain.recipes.recipe import Recipe, Variant, load_recipe, named_recipes
from embodied_midtrain.recipes.summarise import summarise
from embodied_midtrain.report.page import report
from embodied_midtrain.report.summary import Summary, save_summary
from embodied_midtrain.report.terminal import print_summary
from embodied_midtrain.robots.action_text import robots_as_text
from embodied_midtrain.robots.opening import open_robots
from embodied_midtrain.sources.opening import open_pool
from embodied_midtrain.sources.registry.build import build_pool


@dataclass
class Run:
    """A recipe on its way: where things lie, what is timed, the backbone that is at hand."""

    recipe: Recipe
    layout: Layout
    meter: Meter
    loaded: tuple[str, Backbone] | None = None

    def seeded(self, config: Any) -> Any:
        """A stage's config with the recipe's seed added to its own."""
        return replace(config, seed=config.seed + self.recipe.seed)

    def backbone(self, name: str, random_language: int | None = None) -> Backbone:
        """One backbone is kept at a time: several do not fit a laptop."""
        key = f"{name} {random_language}"
        if self.loaded is None or self.loaded[0] != key:
            self.loaded = None
            gc.collect()
            self.loaded = (key, load_backbone(name, random_language=random_language))
        return self.loaded[1]

    # -- data --------------------------------------------------------------------------------------------------------

    def pool(self) -> None:
        if self.recipe.data.pool is None:
            build_pool(self.layout.pool, self.seeded(self.recipe.pool))

    def demos(self) -> None:
        if self.recipe.data.target is None:
            record_demos(self.layout.demos, self.seeded(self.recipe.demos))

    def pool_path(self) -> Path | str:
        return self.recipe.data.pool or self.layout.pool

    def target_path(self) -> Path:
        return self.recipe.data.target or self.layout.demos

    # -- proximity ---------------------------------------------------------------------------------------------------

    def embed(self, of: str) -> None:
        out, config = self.layout.features(of), self.recipe.embed
        if of == "target-other-prompt":
            config = replace(config, prompt=self.recipe.other_prompt)
        skips = Skips()
        if of == "pool":
            pool = open_pool(self.pool_path(), images=self.recipe.data.images, skips=skips)
            embed(out, config, backbone=self.backbone(self.recipe.backbone), pool=pool, skips=skips, total=self._rows())
        else:
            target = open_robots(self.target_path(), skips)
            embed(out, config, backbone=self.backbone(self.recipe.backbone), target=target, skips=skips)

    def _rows(self) -> int | None:
        if self.recipe.data.pool is not None:
            return None
        return sum(source["samples"] for source in Artifact.open(self.layout.pool).counts["sources"].values())

    def features(self, of: str) -> Artifact:
        return Artifact.open(self.layout.features(of), "embed")

    def gap(self) -> None:
        config = self.seeded(self.recipe.gap)
        groups = source_groups(self.pool_path())
        measure_gap(self.layout.gap, config, pool=self.features("pool"), target=self.features("target"), groups=groups)

    def select(self, name: str) -> None:
        other = name == "other-prompt"
        selector = "estimator" if other else name
        config = replace(self.seeded(self.recipe.select), selector=selector)
        if selector != "estimator" and config.draw == "gumbel":
            # Not all give a ratio; the comparison is one of rankings.
            config = replace(config, draw="top")
        by_likelihood = name in ("perplexity", "delta-perplexity")
        scores = self.layout.scores("perplexity" if by_likelihood else "text")
        before = self.layout.scores("before")
        select(
            self.layout.selection(name),
            config,
            pool=self.features("pool"),
            target=self.features("target-other-prompt" if other else "target"),
            match=Artifact.open(self.layout.selection("estimator"), "select") if name == "matched-random" else None,
            scores=Artifact.open(scores, "score") if name in GIVEN else None,
            before=Artifact.open(before, "score") if name == "delta-perplexity" else None,
        )

    def robot_text(self) -> None:
        skips = Skips()
        robots = open_robots(self.target_path(), skips)
        robots_as_text(self.layout.robot_text, self.recipe.robot_text, target=robots, skips=skips)

    def robot_tuned(self) -> None:
        midtrain(
            self.layout.robot_tuned,
            self.seeded(self.recipe.midtrain),
            backbone=self.backbone(self.recipe.backbone),
            pool=self.layout.robot_text,
        )
        self.loaded = None

    def score(self, name: str) -> None:
        skips = Skips()
        config = replace(self.recipe.score, by="text" if name == "text" else "perplexity")
        tuned = str(self.layout.robot_tuned / "model")
        score(
            self.layout.scores(name),
            config,
            pool=open_pool(self.pool_path(), images=self.recipe.data.images, skips=skips),
            backbone=self.backbone({"perplexity": tuned}.get(name, self.recipe.backbone)) if name != "text" else None,
            target=open_robots(self.target_path(), skips) if name == "text" else None,
            skips=skips,
        )

    def compare(self) -> None:
        names = self.recipe.selectors()
        chosen: dict[str, Artifact] = {name: Artifact.open(self.layout.selection(name), "select") for name in names}
        compare(self.layout.compared, pool=self.features("pool"), selections=chosen)

    def audit(self) -> None:
        skips = Skips()
        given = Given(
            selection=Artifact.open(self.layout.selection("estimator"), "select"),
            others={"other-prompt": Artifact.open(self.layout.selection("other-prompt"), "select")},
            samples=open_pool(self.pool_path(), images=self.recipe.data.images, skips=skips),
            samples_skips=skips,
            robots=open_robots(self.target_path(), Skips()),
            backbone=self.backbone(self.recipe.backbone),
        )
        config = self.seeded(self.recipe.audit)
        audit(self.layout.audit, config, pool=self.features("pool"), target=self.features("target"), given=given)

    # -- variants ----------------------------------------------------------------------------------------------------

    def midtrain(self, variant: Variant) -> None:
        midtrain(
            self.layout.midtrained(variant.name),
            self.seeded(self.recipe.midtrain),
            backbone=self.backbone(self.recipe.backbone),
            pool=self.pool_path(),
            images=self.recipe.data.images,
            selection=Artifact.open(self.layout.selection(variant.midtrain_on), "select"),
        )
        # Training changed it in place.
        self.loaded = None

    def finetune(self, variant: Variant) -> None:
        mixed = variant.midtrain_on != "nothing"
        name = str(self.layout.midtrained(variant.name) / "model") if mixed else self.recipe.backbone
        skips = Skips()
        finetune(
            self.layout.policy(variant.name),
            self.seeded(self.recipe.finetune),
            backbone=self.backbone(name, self.recipe.seed if variant.random_language else None),
            demos=open_robots(self.target_path(), skips),
            skips=skips,
            cache=self.layout.run / "cache",
        )
        self.loaded = None

    def rollout(self, variant: Variant) -> None:
        actor = load_actor(self.layout.policy(variant.name))
        rollout(self.layout.rollouts(variant.name), self.recipe.rollout, actor)


def stages(run: Run) -> list[tuple[str, Callable[[], None]]]:
    """Names and work of a recipe's stages, in order."""
    recipe = run.recipe
    rows: list[tuple[str, Callable[[], None]]] = []
    if recipe.data.pool is None:
        rows.append(("pool", run.pool))
    if recipe.data.target is None:
        rows.append(("demos", run.demos))
    rows += [(f"embed {of}", partial(run.embed, of)) for of in ("pool", "target", "target-other-prompt")]
    rows.append(("gap", run.gap))
    names = recipe.selectors()
    if {"perplexity", "delta-perplexity"} & set(names):
        rows += [("robot text", run.robot_text), ("robot tuned", run.robot_tuned)]
        passes = ["before", "perplexity"] if "delta-perplexity" in names else ["perplexity"]
        rows += [(f"score {name}", partial(run.score, name)) for name in passes]
    if "text" in names:
        rows.append(("score text", partial(run.score, "text")))
    rows += [(f"select {name}", partial(run.select, name)) for name in (*names, "other-prompt")]
    if len(names) > 1:
        rows.append(("compare", run.compare))
    rows.append(("audit", run.audit))
    for stage, work in (("midtrain", run.midtrain), ("finetune", run.finetune), ("rollout", run.rollout)):
        for variant in recipe.variants:
            if stage != "midtrain" or variant.midtrain_on != "nothing":
                rows.append((f"{stage} {variant.name}", partial(work, variant)))
    return rows


def run_recipe(recipe: Recipe, out: Path, *, until: str | None = None, command: str = "") -> Summary:
    """Run a recipe's stages into folder `out`, then write `summary.json` and the report.

    Args:
        until: the name of the last stage to run; the summary and the report come in any case.
        command: what was typed, for the record.

    Raises:
        StageError: as the stage that failed; what was finished before is kept, and the summary says what failed.
        ArtifactMismatch: where `out` holds a run of another recipe.
        ValueError: on an `until` that is no stage.
    """
    recipe.check()
    layout = Layout(out)
    out.mkdir(parents=True, exist_ok=True)
    run = Run(recipe, layout, Meter(out))
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
        summary = summarise(layout, recipe, run.meter.times(), command)
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
    """Folder of the run; by default runs/NAME."""
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
        run_recipe(recipe, options.out or Path("runs") / recipe.name, until=options.until, command=_command(prog))

    call.__doc__ = f"""Run the stages of a recipe; the same command goes on after an interruption.

    Every setting of the recipe can be changed here.

    Examples:
        {prog} --until gap
        {prog} --out runs/second --seed 1 --select.k 2000
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
    ]
    return "\n".join(lines)
