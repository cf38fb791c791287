"""Closed-loop results of a run's variants, and what they say against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embodied_midtrain.artifacts import MANIFEST, Artifact, StageError
from embodied_midtrain.benchmarks.rollout import EpisodeResult, TaskResult, read_episodes
from embodied_midtrain.intervals import Difference, compare
from embodied_midtrain.recipes.layout import Layout
from embodied_midtrain.recipes.recipe import Recipe, Tuning, Variant
from embodied_midtrain.recipes.vla_eval import COMMANDS, read_played
from embodied_midtrain.report import summary as doc


@dataclass(frozen=True)
class ClosedLoop:
    """What the rollouts add to the summary; empty where there are none yet."""

    rollouts: tuple[doc.Rollouts, ...] = ()
    variants: tuple[doc.VariantResult, ...] = ()
    comparisons: tuple[doc.Comparison, ...] = ()
    videos: tuple[doc.Video, ...] = ()


Played = dict[str, list[tuple[int, EpisodeResult]]]
"""By variant: the training seed and the episode, for all of its trainings."""


def closed_loop(layout: Layout, recipe: Recipe, benchmark: str = "") -> ClosedLoop:
    """Read every finished rollout and compare the variants on the same episodes of the same training seeds."""
    played: Played = {}
    videos = []
    lengths: dict[str, list[float]] = {}
    for tuning in recipe.tunings():
        if tuning.benchmark != benchmark:
            continue
        training, folder = tuning.training, layout.rollouts(tuning.name)
        found = _episodes(layout, recipe, tuning)
        if found is None:
            continue
        episodes, counted = found
        name = training.variant.name
        lengths.setdefault(name, []).extend(counted)
        played.setdefault(name, []).extend((training.seed, episode) for episode in episodes)
        if training.seed == recipe.training_seeds[0]:
            videos += [
                doc.Video(f"{layout.relative(folder)}/{e.video}", name, e.task, e.success, e.episode)
                for e in episodes
                if e.video
            ]
    known = [variant for variant in recipe.variants if variant.name in played]
    return ClosedLoop(
        rollouts=tuple(row for v in known for row in _by_task(v, played[v.name])),
        variants=tuple(_overall(v, played[v.name], lengths[v.name]) for v in known),
        comparisons=tuple(_comparisons(known, played)),
        videos=tuple(videos),
    )


def _episodes(layout: Layout, recipe: Recipe, tuning: Tuning) -> tuple[Sequence[EpisodeResult], Sequence[float]] | None:
    """A policy's episodes, and the lengths of its sequences where those count; None: not played yet."""
    own = recipe.benchmarks.get(tuning.benchmark)
    if own is not None and own.protocol:
        if not (layout.policy(tuning.name) / MANIFEST).is_file():
            return None
        found = read_played(layout.vla_eval(tuning.name), layout.policy(tuning.name))
        return (found.episodes, found.lengths) if found.complete else None
    folder = layout.rollouts(tuning.name)
    if not (folder / MANIFEST).is_file():
        return None
    try:
        return read_episodes(Artifact.open(folder, "rollout")), ()
    except StageError:
        return None


def by_benchmark(layout: Layout, recipe: Recipe) -> tuple[doc.BenchmarkResult, ...]:
    """The results of each of the recipe's benchmarks; for what is not played yet, the commands that play it."""
    rows = []
    for name, own in recipe.benchmarks.items():
        found = closed_loop(layout, recipe, name)
        todo: list[str] = []
        waiting = []
        for tuning in recipe.tunings():
            if tuning.benchmark == name and _episodes(layout, recipe, tuning) is None:
                waiting.append(tuning.name)
                orders = layout.vla_eval(tuning.name) / COMMANDS
                todo += orders.read_text().splitlines() if own.protocol and orders.is_file() else []
        rows.append(
            doc.BenchmarkResult(
                name=name,
                title=own.title or name,
                where=own.where,
                waiting=tuple(waiting),
                commands=tuple(todo),
                rollouts=found.rollouts,
                variants=found.variants,
                comparisons=found.comparisons,
                videos=found.videos,
            )
        )
    return tuple(rows)


def _by_task(variant: Variant, played: list[tuple[int, EpisodeResult]]) -> list[doc.Rollouts]:
    rows = []
    for task in dict.fromkeys(e.task for _, e in played):
        result = TaskResult.of([e.success for _, e in played if e.task == task])
        rows.append(doc.Rollouts(variant.name, task, result.successes, result.episodes, result.low, result.high))
    return rows


def _overall(variant: Variant, played: list[tuple[int, EpisodeResult]], lengths: Sequence[float]) -> doc.VariantResult:
    result = TaskResult.of([e.success for _, e in played])
    title = variant.title or variant.name
    seeds = {s: [e.success for seed, e in played if seed == s] for s, _ in played}
    by_seed = {seed: sum(outcomes) / len(outcomes) for seed, outcomes in seeds.items()} if len(seeds) > 1 else {}
    return doc.VariantResult(
        variant.name,
        result.success,
        result.low,
        result.high,
        result.episodes,
        title,
        tuple(by_seed.values()),
        sum(lengths) / len(lengths) if lengths else None,
    )


def _comparisons(known: list[Variant], played: Played) -> list[doc.Comparison]:
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


def _comparison(first: Variant, second: Variant, played: Played, kind: str) -> doc.Comparison | None:
    a = {(e.task, e.state, seed): e.success for seed, e in played[first.name]}
    b = {(e.task, e.state, seed): e.success for seed, e in played[second.name]}
    shared = [key for key in a if key in b]
    if not shared:
        return None
    seeds = dict.fromkeys(seed for _, _, seed in shared)
    by_seed = [[float(a[key]) - float(b[key]) for key in shared if key[2] == seed] for seed in seeds]
    found = compare(
        [a[key] for key in shared],
        [b[key] for key in shared],
        tasks=[task for task, _, _ in shared],
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
        by_seed=tuple(sum(some) / len(some) for some in by_seed) if len(seeds) > 1 else (),
    )


def _tells_apart(found: Difference) -> str:
    if found.outcome == "better":
        return f"This benchmark can tell initialisations apart: {found.verdict}"
    return (
        "This benchmark cannot tell initialisations apart at this budget: a policy from a randomly initialised "
        "language model does as well as one from the pretrained model, so the order of the variants says nothing. "
        f"{found.verdict[0].upper()}{found.verdict[1:]}"
    )
