"""Closed-loop results of a run's variants, and what they say against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from embodied_midtrain.artifacts import MANIFEST, Artifact, StageError
from embodied_midtrain.benchmarks.comparison import Record, against
from embodied_midtrain.benchmarks.rollout import read_episodes
from embodied_midtrain.intervals import Difference, corrected
from embodied_midtrain.recipes.layout import Layout
from embodied_midtrain.recipes.recipe import Recipe, Tuning, Variant
from embodied_midtrain.recipes.vla_eval import COMMANDS, Played, read_played
from embodied_midtrain.report import summary as doc


def closed_loop(layout: Layout, recipe: Recipe) -> tuple[tuple[doc.BenchmarkResult, ...], tuple[str, ...]]:
    """Every finished rollout, and the variants compared on the same episodes of the same training seeds.

    Returns:
        the results on each benchmark, on one without a name where the recipe has one robot only; and what could not be
        compared, in words.
    """
    records: dict[str, dict[str, Record]] = {name: {} for name in recipe.benchmarks or ("",)}
    rows = [_played(layout, recipe, name, own) for name, own in records.items()]
    found, faults = _comparisons(recipe.variants, records)
    return tuple(replace(row, comparisons=tuple(found[row.name])) for row in rows), tuple(faults)


def _played(layout: Layout, recipe: Recipe, benchmark: str, records: dict[str, Record]) -> doc.BenchmarkResult:
    """All but the comparisons; for what is not played yet, the commands that play it. Fills `records`, by variant."""
    own = recipe.benchmarks.get(benchmark)
    waiting, commands, videos = [], [], []
    for tuning in recipe.tunings():
        if tuning.benchmark != benchmark:
            continue
        name, seed = tuning.training.variant.name, tuning.training.seed
        found = _episodes(layout, recipe, tuning)
        if not found.complete:
            waiting.append(tuning.name)
            orders = layout.vla_eval(tuning.name) / COMMANDS
            commands += orders.read_text().splitlines() if orders.is_file() else []
            continue
        records.setdefault(name, Record()).add(found.episodes, seed, found.lengths)
        if seed == recipe.training_seeds[0]:
            folder = layout.relative(layout.rollouts(tuning.name))
            videos += [
                doc.Video(f"{folder}/{e.video}", name, e.task, e.success, e.episode) for e in found.episodes if e.video
            ]
    known = [variant for variant in recipe.variants if variant.name in records]
    return doc.BenchmarkResult(
        name=benchmark,
        title=own.title or benchmark if own else "",
        where=own.where if own else "",
        waiting=tuple(waiting),
        commands=tuple(commands),
        rollouts=tuple(
            doc.Rollouts(v.name, task, one.successes, one.episodes, one.low, one.high)
            for v in known
            for task, one in records[v.name].tasks().items()
        ),
        variants=tuple(_overall(v, records[v.name]) for v in known),
        videos=tuple(videos),
    )


def _episodes(layout: Layout, recipe: Recipe, tuning: Tuning) -> Played:
    """What a policy has played."""
    own = recipe.benchmarks.get(tuning.benchmark)
    if own is not None and own.protocol:
        return read_played(layout.vla_eval(tuning.name), layout.policy(tuning.name))
    folder = layout.rollouts(tuning.name)
    if not (folder / MANIFEST).is_file():
        return Played()
    try:
        return Played(tuple(read_episodes(Artifact.open(folder, "rollout"))), complete=True)
    except StageError:
        return Played()


def _overall(variant: Variant, record: Record) -> doc.VariantResult:
    result, seeds = record.all(), record.by_seed()
    return doc.VariantResult(
        variant.name,
        result.success,
        result.low,
        result.high,
        result.episodes,
        _title(variant),
        tuple(seeds.values()) if len(seeds) > 1 else (),
        record.length(),
    )


def _title(variant: Variant) -> str:
    return variant.title or variant.name


def _pairs(known: Sequence[Variant]) -> Iterator[tuple[Variant, Variant]]:
    """Every pretrained variant with each that stands before it, and the reference with random weights."""
    pretrained = [variant for variant in known if not variant.random_language]
    for n, later in enumerate(pretrained):
        for earlier in pretrained[:n]:
            yield later, earlier
    # The reference stands for "pretrained": choosing the best of several here would favour it by chance.
    for control in known:
        if control.random_language and pretrained:
            yield pretrained[0], control


def _comparisons(
    variants: Sequence[Variant], records: Mapping[str, Mapping[str, Record]]
) -> tuple[dict[str, list[doc.Comparison]], list[str]]:
    """By benchmark, corrected over all of them; and why there is none where episodes did not begin alike."""
    tests, faults = [], []
    for benchmark, of in records.items():
        for first, second in _pairs([variant for variant in variants if variant.name in of]):
            a, b = of[first.name], of[second.name]
            if a.episodes.keys().isdisjoint(b.episodes):
                continue
            try:
                tests.append((benchmark, first, second, *against(a, b, _title(first), _title(second))))
            except StageError as error:
                faults.append(str(error))
    controls = {n for n, (_, _, second, *_) in enumerate(tests) if second.random_language}
    found = corrected([one for *_, one, _ in tests], controls)
    rows: dict[str, list[doc.Comparison]] = {benchmark: [] for benchmark in records}
    for (benchmark, first, second, _, by_seed), one in zip(tests, found, strict=True):
        rows[benchmark].append(_comparison(first, second, one, tuple(by_seed.values())))
    return rows, faults


def _comparison(first: Variant, second: Variant, found: Difference, by_seed: tuple[float, ...]) -> doc.Comparison:
    verdict, control = found.verdict(_title(first), _title(second)), second.random_language
    return doc.Comparison(
        variant=first.name,
        baseline=second.name,
        difference=found.difference,
        low=found.low,
        high=found.high,
        p=found.p,
        verdict=_tells_apart(found, verdict) if control else verdict,
        outcome=found.outcome,
        kind="initialisation" if control else "variant",
        p_adjusted=None if control else found.p_adjusted,
        by_seed=by_seed if len(by_seed) > 1 else (),
    )


def _tells_apart(found: Difference, verdict: str) -> str:
    if found.outcome == "better":
        return f"This benchmark can tell initialisations apart: {verdict}"
    return (
        "This benchmark cannot tell initialisations apart at this budget: a policy from a randomly initialised "
        "language model does as well as one from the pretrained model, so the order of the variants says nothing. "
        f"{verdict[0].upper()}{verdict[1:]}"
    )
