"""One factor for every count of a recipe: a long one checked from end to end in minutes."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

from embodied_midtrain.recipes.recipe import Recipe

T = TypeVar("T")

COUNTS: dict[str, dict[str, int]] = {
    "pool": {"per_source": 12},
    "demos": {"episodes": 3, "episodes_of": 3},
    "select": {"k": 1},
    "capability": {"budget": 7},
    "compose": {"budget": 4},
    "midtrain": {"steps": 2, "warmup_steps": 0, "batch": 4, "micro_batch": 2, "keep": 1},
    "finetune": {"steps": 2, "warmup_steps": 0, "batch": 4, "micro_batch": 2, "episodes_per_task": 1},
    "rollout": {"episodes": 1},
}
"""Counts of each stage that are scaled, with the least that still does all of it: two steps, each of two micro-batches,
of two samples. What only caps the cost of a stage (rows that a measure is fitted to, points on a map, rows of one
forward pass) stays: less data needs less of it anyway."""
OF_RECIPES = ("pool", "demos", "select", "midtrain", "finetune", "rollout")
TARGET_FRAMES = 20
"""The estimator needs frames to fit and to validate, of each data set."""


def scaled(recipe: Recipe) -> Recipe:
    """The recipe that is run: every count times `scale`, and `scale` itself 1, so that it is not applied again."""
    factor = recipe.scale
    if factor == 1.0:
        return recipe
    changed: dict[str, Any] = {name: scaled_config(name, getattr(recipe, name), factor) for name in OF_RECIPES}
    changed["benchmarks"] = {
        name: replace(one, rollout=scaled_config("rollout", one.rollout, factor))
        for name, one in recipe.benchmarks.items()
    }
    if recipe.target_frames is not None:
        changed["target_frames"] = _count(recipe.target_frames, factor, TARGET_FRAMES)
    return replace(recipe, **changed, scale=1.0)


def scaled_config(stage: str, config: T, factor: float) -> T:
    """A stage's config with its counts times the factor; of a stage without counts, the same."""
    if factor == 1.0:
        return config
    least = COUNTS.get(stage, {})
    known = {field.name for field in fields(config)}  # type: ignore[arg-type]
    assert set(least) <= known, f"{type(config).__name__} has no {set(least) - known}"
    values = {name: getattr(config, name) for name in least}
    new: dict[str, Any] = {
        name: {key: _count(v, factor, least[name]) for key, v in value.items()}
        if isinstance(value, dict)
        else _count(value, factor, least[name])
        for name, value in values.items()
        if value is not None
    }
    if milestones := getattr(config, "milestones", ()):
        last = new["steps"] - 1
        new["milestones"] = tuple(sorted({min(last, _count(step, factor, 1)) for step in milestones}))
    return replace(config, **new)  # type: ignore[type-var]


def _count(value: int, factor: float, least: int) -> int:
    """Never above what it was for a factor below 1: a floor is no reason to do more."""
    return max(min(least, value), round(value * factor))
