"""What a recipe is given: where its pool and its robot data lie, looked at before hours of work depend on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path

import yaml

from embodied_midtrain.artifacts import Skips, StageError, write_atomic
from embodied_midtrain.config import load_yaml
from embodied_midtrain.episodes import Robots
from embodied_midtrain.recipes.layout import Layout
from embodied_midtrain.recipes.recipe import Recipe
from embodied_midtrain.report.summary import load_summary
from embodied_midtrain.robots.opening import open_robots
from embodied_midtrain.sources.opening import open_pool
from embodied_midtrain.sources.places import absolute


def named_pools() -> dict[str, Path]:
    """Pool files that come with the package, by name; their paths start from the recipe's data.folder."""
    folder = Path(str(resources.files("embodied_midtrain.recipes"))) / "pools"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def pool_place(recipe: Recipe, layout: Layout) -> Path | str:
    """The recipe's pool for `open_pool`."""
    given = recipe.data.pool
    if given is None:
        return layout.pool
    return layout.pool_file if given in named_pools() else given


def with_selected_pool(recipe: Recipe) -> Recipe:
    """With the pool of the run whose selections are taken, where it takes another's.

    Raises:
        StageError: where that is no run, or lacks a selection.
    """
    run = recipe.selection_from
    if run is None:
        return recipe
    files = load_summary(run).files
    lacking = {v.midtrain_on for v in recipe.variants} - {"nothing"}
    lacking = {name for name in lacking if f"select {name}" not in files.artifacts}
    if lacking or not files.pool:
        have = [name.removeprefix("select ") for name in files.artifacts if name.startswith("select ")]
        wanted = f"no selection by {', '.join(sorted(lacking))}" if lacking else "no pool"
        raise StageError(f"selection_from: {run} has {wanted}; it has selections by: {', '.join(have) or 'nothing'}.")
    images = Path(files.images) if files.images else None
    return replace(recipe, data=replace(recipe.data, pool=absolute(files.pool, run.resolve()), images=images))


def write_pool_file(recipe: Recipe, layout: Layout) -> None:
    """Where the pool is one of the package's files, the same with whole paths, into the run."""
    if recipe.data.pool not in named_pools():
        return
    values = load_yaml(named_pools()[str(recipe.data.pool)])
    start = (recipe.data.folder or Path()).resolve()
    for source in values["sources"]:
        source |= {key: absolute(source[key], start) for key in ("path", "images") if key in source}
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    if not layout.pool_file.is_file() or layout.pool_file.read_text() != text:
        write_atomic(layout.pool_file, text)


def target_place(recipe: Recipe, layout: Layout, benchmark: str = "") -> Path:
    """Robot data of a benchmark, or of the recipe's only robot."""
    if not benchmark:
        return recipe.data.target or layout.demos
    return (recipe.data.folder or Path()) / recipe.benchmarks[benchmark].target


def open_target(recipe: Recipe, layout: Layout, skips: Skips, benchmark: str = "") -> Robots:
    """Robot data of a benchmark, whose actions its policies could act with.

    Raises:
        StageError: where they are missing (it says where they are to be had) or their actions are not the benchmark's.
    """
    place = target_place(recipe, layout, benchmark)
    if not benchmark:
        return open_robots(place, skips)
    own = recipe.benchmarks[benchmark]
    try:
        robots = open_robots(place, skips, camera=own.camera, split=own.split)
    except StageError as error:
        hint = f" {own.title or benchmark} is to be had from {own.home}." if own.home else ""
        raise StageError(f"benchmarks.{benchmark}: {error}{hint}") from error
    own.check_actions(robots.spec, f"{benchmark} ({robots.name})")
    return robots


def check_inputs(recipe: Recipe, layout: Layout) -> None:
    """Open everything that the recipe is given, before the first stage.

    Raises:
        StageError: with everything that is missing, not only the first of it.
    """
    write_pool_file(recipe, layout)
    missing: list[str] = []
    if recipe.data.pool is not None:
        try:
            open_pool(pool_place(recipe, layout), images=recipe.data.images, skips=Skips())
        except StageError as error:
            missing.append(str(error))
    for name in recipe.benchmarks or ([""] if recipe.data.target is not None else []):
        try:
            open_target(recipe, layout, Skips(), name)
        except StageError as error:
            missing.append(str(error))
    if missing and recipe.data.folder is None and (recipe.benchmarks or recipe.data.pool in named_pools()):
        missing.append("Relative paths start from the working folder; --data.folder names another.")
    if missing:
        raise StageError("\n".join(missing))


def opened(recipe: Recipe, layout: Layout, skips: Skips) -> Mapping[str, Robots]:
    """The robot data of every benchmark."""
    return {name: open_target(recipe, layout, skips, name) for name in recipe.benchmarks}
