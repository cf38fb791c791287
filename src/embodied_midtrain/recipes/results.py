"""Closed-loop results of a run's variants, and what they say against each other."""

from __future__ import annotations

from dataclasses import dataclass

from embodied_midtrain.artifacts import MANIFEST, Artifact, StageError
from embodied_midtrain.benchmarks.rollout import EpisodeResult, TaskResult, read_episodes
from embodied_midtrain.recipes.layout import Layout
from embodied_midtrain.recipes.recipe import Recipe, Variant
from embodied_midtrain.report import summary as doc
from embodied_midtrain.studies.intervals import Difference, compare


@dataclass(frozen=True)
class ClosedLoop:
    """What the rollouts add to the summary; empty where there are none yet."""

    rollouts: tuple[doc.Rollouts, ...] = ()
    variants: tuple[doc.VariantResult, ...] = ()
    comparisons: tuple[doc.Comparison, ...] = ()
    videos: tuple[doc.Video, ...] = ()


def closed_loop(layout: Layout, recipe: Recipe) -> ClosedLoop:
    """Read every finished rollout and compare the variants on the same episodes."""
    played: dict[str, list[EpisodeResult]] = {}
    for variant in recipe.variants:
        folder = layout.rollouts(variant.name)
        if (folder / MANIFEST).is_file():
            try:
                played[variant.name] = read_episodes(Artifact.open(folder, "rollout"))
            except StageError:
                continue
    known = [variant for variant in recipe.variants if variant.name in played]
    return ClosedLoop(
        rollouts=tuple(row for v in known for row in _by_task(v, played[v.name])),
        variants=tuple(_overall(v, played[v.name]) for v in known),
        comparisons=tuple(_comparisons(known, played)),
        videos=tuple(
            doc.Video(f"{layout.relative(layout.rollouts(v.name))}/{e.video}", v.name, e.task, e.success, e.episode)
            for v in known
            for e in played[v.name]
            if e.video
        ),
    )


def _by_task(variant: Variant, episodes: list[EpisodeResult]) -> list[doc.Rollouts]:
    rows = []
    for task in dict.fromkeys(e.task for e in episodes):
        result = TaskResult.of([e.success for e in episodes if e.task == task])
        rows.append(doc.Rollouts(variant.name, task, result.successes, result.episodes, result.low, result.high))
    return rows


def _overall(variant: Variant, episodes: list[EpisodeResult]) -> doc.VariantResult:
    result = TaskResult.of([e.success for e in episodes])
    title = variant.title or variant.name
    return doc.VariantResult(variant.name, result.success, result.low, result.high, result.episodes, title)


def _comparisons(known: list[Variant], played: dict[str, list[EpisodeResult]]) -> list[doc.Comparison]:
    """Every pretrained variant against each that stands before it, and the reference against random weights."""
    pretrained = [variant for variant in known if not variant.random_language]
    scratch = [variant for variant in known if variant.random_language]
    rows = [
        _comparison(later, earlier, played, "variant")
        for n, later in enumerate(pretrained)
        for earlier in pretrained[:n]
    ]
    # The reference stands for "pretrained": choosing the best of several here would favour it by chance.
    rows += [_comparison(pretrained[0], control, played, "initialisation") for control in scratch if pretrained]
    return [row for row in rows if row is not None]


def _comparison(
    first: Variant, second: Variant, played: dict[str, list[EpisodeResult]], kind: str
) -> doc.Comparison | None:
    a = {(e.task, e.state): e.success for e in played[first.name]}
    b = {(e.task, e.state): e.success for e in played[second.name]}
    shared = [key for key in a if key in b]
    if not shared:
        return None
    found = compare(
        [a[key] for key in shared],
        [b[key] for key in shared],
        tasks=[task for task, _ in shared],
        name_a=first.title or first.name,
        name_b=second.title or second.name,
    )
    return doc.Comparison(
        variant=first.name,
        baseline=second.name,
        difference=found.difference,
        low=found.low,
        high=found.high,
        p=found.p,
        verdict=found.verdict if kind == "variant" else _tells_apart(found),
        outcome=found.outcome,
        kind="initialisation" if kind == "initialisation" else "variant",
    )


def _tells_apart(found: Difference) -> str:
    if found.outcome == "better":
        return f"This benchmark can tell initialisations apart: {found.verdict}"
    return (
        "This benchmark cannot tell initialisations apart at this budget: a policy from a randomly initialised "
        "language model does as well as one from the pretrained model, so the order of the variants says nothing. "
        f"{found.verdict[0].upper()}{found.verdict[1:]}"
    )
