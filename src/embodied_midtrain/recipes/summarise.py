"""From a run's artifacts to its one document: RUN/summary.json.

Everything is read from what the stages wrote; a stage that has not run leaves its part empty.
"""

from __future__ import annotations

import math
import platform
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from embodied_midtrain import __version__
from embodied_midtrain.artifacts import MANIFEST, Artifact, StageError, fingerprint_of, read_json, to_plain
from embodied_midtrain.features.drawing import source_codes, take_rows
from embodied_midtrain.features.store import FeatureStore, open_features, read_features
from embodied_midtrain.gap.diversity import diversity
from embodied_midtrain.gap.measure import POOL, TARGET
from embodied_midtrain.proximity.aligning import names_of
from embodied_midtrain.proximity.ranking import agreement_within, spearman, variance_between
from embodied_midtrain.proximity.select import read_selection
from embodied_midtrain.recipes.audited import audited
from embodied_midtrain.recipes.inputs import pool_place
from embodied_midtrain.recipes.layout import Layout
from embodied_midtrain.recipes.recipe import Recipe
from embodied_midtrain.recipes.results import closed_loop
from embodied_midtrain.report import summary as doc
from embodied_midtrain.sources.places import absolute

DIVERSITY_ROWS = 20_000
"""Of a selection whose diversity is measured: all of a small one, a draw of a large one."""


def summarise(
    layout: Layout, recipe: Recipe, stages: tuple[doc.StageTime, ...], command: str, scale: float = 1.0
) -> doc.Summary:
    """What a run has measured so far; `scale` is what the counts of `recipe` were multiplied by."""
    pool = _pool(layout)
    groups = {source.name: source.group for source in pool.sources} if pool else {}
    results, faults = closed_loop(layout, recipe)
    alone = doc.BenchmarkResult("") if recipe.benchmarks else results[0]
    reported = _finished(layout.report) is not None or all(s.state == "done" for s in stages)
    return doc.Summary(
        name=recipe.name,
        seed=recipe.seed,
        created=datetime.now(UTC).replace(microsecond=0).isoformat(),
        machine=machine(),
        state="done" if reported and not any(one.waiting for one in results) else "partial",
        benchmark=_where(recipe),
        stages=stages,
        pool=pool,
        target=_target(layout),
        estimator=_estimator(layout),
        proximity=_proximity(layout, recipe, groups),
        audit=audited(layout.audit) if _finished(layout.audit) else None,
        mmd=_mmd(layout),
        diversity=_diversity(layout, recipe),
        selections=_selections(layout, recipe, groups),
        selectors=_selectors(layout),
        midtrain=_training(layout, recipe, "midtrain"),
        policies=_training(layout, recipe, "finetune"),
        rollouts=alone.rollouts,
        variants=alone.variants,
        comparisons=alone.comparisons,
        videos=alone.videos,
        benchmarks=results if recipe.benchmarks else (),
        scale=scale,
        faults=(*(f"{s.name}: {s.note}" for s in stages if s.state == "failed"), *faults),
        files=_files(layout, recipe),
        provenance=_provenance(layout, recipe, command),
    )


def _where(recipe: Recipe) -> str:
    if recipe.benchmarks:
        return ", ".join(one.title or name for name, one in recipe.benchmarks.items())
    return f"{recipe.rollout.benchmark} ({len(recipe.rollout.tasks)} tasks, image and instruction only)"


def _files(layout: Layout, recipe: Recipe) -> doc.Files:
    own, images = recipe.data.pool and str(pool_place(recipe, layout)), recipe.data.images
    scores = layout.selection("estimator")
    return doc.Files(
        pool=absolute(own) if own else layout.relative(layout.pool) if _finished(layout.pool) else "",
        images=str(images.resolve()) if images else "",
        map=layout.relative(layout.gap / "map.parquet") if _finished(layout.gap) else "",
        scores=layout.relative(scores / "scores.parquet") if _finished(scores) else "",
        artifacts={name: layout.relative(path) for name, path in layout.artifacts(recipe).items() if _finished(path)},
    )


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return f"{platform.system()} {platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GiB"


def _finished(path: Path) -> Artifact | None:
    if not (path / MANIFEST).is_file():
        return None
    try:
        return Artifact.open(path)
    except StageError:
        return None


def _pool(layout: Layout) -> doc.PoolFacts | None:
    built, features = _finished(layout.pool), _finished(layout.features("pool"))
    if built is not None:
        rows = built.counts.get("sources", {})
        sources = tuple(
            doc.PoolSource(n, r["samples"], r.get("group", ""), r.get("licence", ""), r.get("skipped", {}))
            for n, r in rows.items()
        )
        missing = tuple(doc.MissingSource(n, str(why)) for n, why in built.counts.get("unavailable", {}).items())
        return doc.PoolFacts(sources, missing)
    if features is not None:
        names, codes = source_codes(open_features(features))
        counted = zip(names, np.bincount(codes).tolist(), strict=True)
        return doc.PoolFacts(tuple(doc.PoolSource(name, n) for name, n in counted))
    return None


def _target(layout: Layout) -> doc.TargetFacts | None:
    features = _finished(layout.features("target"))
    if features is None:
        return None
    table = read_features(features)
    episodes = [i.rsplit("/", 1)[0] for i in table.ids.tolist()]
    named = sorted({*zip(table.sources.tolist(), episodes, strict=True)})
    frames = Counter(table.sources.tolist())
    tasks = tuple(doc.TargetTask(name, n, frames[name]) for name, n in sorted(Counter(s for s, _ in named).items()))
    return doc.TargetFacts("robot demonstrations", len(named), len(table), tasks)


def _estimator(layout: Layout) -> doc.EstimatorFacts | None:
    chosen = _finished(layout.selection("estimator"))
    if chosen is None:
        return None
    fit = read_json(chosen.file("selection.json"))["estimator"]
    steps = tuple(range(1, len(fit["curve"]) + 1))
    curve = doc.Curve("validation accuracy", steps, tuple(fit["curve"]))
    return doc.EstimatorFacts(fit["accuracy"], fit["steps"], fit["stopped_by"], tuple(fit["notes"]), curve)


def _proximity(layout: Layout, recipe: Recipe, groups: dict[str, str]) -> doc.ProximityFacts | None:
    first = _finished(layout.selection("estimator"))
    if first is None:
        return None
    sources, scores = _scores(first)
    facts = read_json(first.file("selection.json"))["by_source"]
    other = _finished(layout.selection("other-prompt"))
    if other is None:
        return doc.ProximityFacts(
            _by_source(facts, groups, {}),
            prompt=recipe.embed.prompt,
            between_sources=_number(variance_between(sources, scores)),
        )
    _, again = _scores(other)
    within = agreement_within(sources, scores, again)
    sizes = {name: int((sources == name).sum()) for name in within}
    known = {name: value for name, value in within.items() if math.isfinite(value)}
    mean = sum(known[n] * sizes[n] for n in known) / sum(sizes[n] for n in known) if known else None
    return doc.ProximityFacts(
        sources=_by_source(facts, groups, within),
        sources_other_prompt=_by_source(read_json(other.file("selection.json"))["by_source"], groups, within),
        prompt=recipe.embed.prompt,
        other_prompt=recipe.other_prompt,
        agreement=_number(spearman(scores, again)),
        agreement_within=mean,
        between_sources=_number(variance_between(sources, scores)),
    )


def _scores(selection: Artifact) -> tuple[NDArray[np.str_], NDArray[np.float32]]:
    """Sources and scores of the whole pool in the order of (source, id)."""
    table = pq.read_table(selection.file("scores.parquet")).sort_by([("source", "ascending"), ("id", "ascending")])
    return np.array(table["source"].to_pylist()), table["score"].to_numpy()


def _by_source(
    facts: dict[str, Any], groups: dict[str, str], within: dict[str, float]
) -> tuple[doc.SourceProximity, ...]:
    return tuple(
        doc.SourceProximity(
            source=name,
            n=row["n"],
            median=row["median"],
            lower_quartile=row["quartiles"][0],
            upper_quartile=row["quartiles"][1],
            group=groups.get(name, ""),
            within_agreement=_number(within.get(name, math.nan)),
        )
        for name, row in sorted(facts.items(), key=lambda item: -item[1]["median"])
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mmd(layout: Layout) -> doc.MmdFacts | None:
    gap = _finished(layout.gap)
    if gap is None:
        return None
    facts = read_json(gap.file("mmd.json"))
    return doc.MmdFacts(tuple(facts["names"]), tuple(map(tuple, facts["matrix"])), facts["sigma"])


def _diversity(layout: Layout, recipe: Recipe) -> doc.DiversityFacts | None:
    gap, features = _finished(layout.gap), _finished(layout.features("pool"))
    if gap is None or features is None:
        return None
    facts = read_json(gap.file("diversity.json"))
    store = open_features(features)
    selections = {}
    for variant in recipe.variants:
        chosen = _finished(layout.selection(variant.midtrain_on)) if variant.midtrain_on != "nothing" else None
        if chosen is not None:
            selections[variant.name] = diversity(_chosen_rows(store, read_selection(chosen), recipe.seed))
    return doc.DiversityFacts(facts[POOL], facts[TARGET], selections, "1 / E[exp(-2 |u - v|²)] on unit features")


def _chosen_rows(store: FeatureStore, chosen: list[tuple[str, str]], seed: int) -> NDArray[np.float32]:
    """Features of a selection, or of a draw of it: all pairs of millions would take days."""
    drawn = np.random.default_rng(seed).choice(len(chosen), min(len(chosen), DIVERSITY_ROWS), replace=False)
    wanted = {chosen[n] for n in drawn.tolist()}
    places, first = [], 0
    for sources, ids in names_of(store):
        places += [first + n for n, key in enumerate(zip(sources, ids, strict=True)) if key in wanted]
        first += len(ids)
    return take_rows(store, np.array(places, np.int64)).features


def _selections(layout: Layout, recipe: Recipe, groups: dict[str, str]) -> tuple[doc.SelectionFacts, ...]:
    rows = []
    for training in recipe.trainings()[: len(recipe.variants)]:
        variant = training.variant
        chosen = _finished(layout.selection(variant.midtrain_on)) if variant.midtrain_on != "nothing" else None
        if chosen is None:
            continue
        facts = read_json(chosen.file("selection.json"))
        size = sum(facts["composition"].values())
        mixed = _finished(layout.midtrained(training.name))
        mixture = mixed.counts.get("composition", {}) if mixed else {}
        shares = tuple(
            _share(name, n, size, mixture.get(name), groups.get(name, ""))
            for name, n in sorted(facts["composition"].items(), key=lambda item: -item[1])
        )
        table = layout.relative(chosen.file("selection.parquet"))
        rows.append(doc.SelectionFacts(variant.name, facts["selector"], size, shares, table))
    return tuple(rows)


def _selectors(layout: Layout) -> tuple[doc.SelectorFacts, ...]:
    """Every selector beside the estimator, which comes first."""
    done = _finished(layout.compared)
    if done is None:
        return ()
    facts = read_json(done.file("agreement.json"))
    rows = []
    for n, name in enumerate(facts["names"]):
        by_source = read_json(layout.selection(name) / "selection.json")["by_source"]
        medians = {source: row["median"] for source, row in by_source.items()}
        others = {
            other: doc.Agreement(_number(facts["spearman"][n][k] or math.nan), facts["overlap"][n][k])
            for k, other in enumerate(facts["names"])
        }
        rows.append(doc.SelectorFacts(name, others, facts["by_chance"][0][n], medians))
    return tuple(rows)


def _share(name: str, chosen: int, size: int, mixed: dict[str, Any] | None, group: str) -> doc.Share:
    """Asked for: the source's share of the selection; realised: its share of what mid-training saw."""
    if mixed is None:
        return doc.Share(name, chosen / size, chosen / size, chosen, 0, group)
    return doc.Share(name, mixed["target"], mixed["realised"], mixed["drawn"], mixed["repeated"], group)


def _training(layout: Layout, recipe: Recipe, stage: str) -> tuple[doc.TrainingFacts, ...]:
    rows = []
    # Of several training seeds the first stands for all: their curves lie over each other.
    first = recipe.trainings()[: len(recipe.variants)]
    if stage == "midtrain":
        made = [(training.variant, "loss", layout.midtrained(training.name)) for training in first]
    else:
        tunings = [tuning for tuning in recipe.tunings() if tuning.training in first]
        made = [(t.training.variant, f"loss, {t.benchmark}".rstrip(", "), layout.policy(t.name)) for t in tunings]
    for variant, measured, path in made:
        done = _finished(path)
        if done is None:
            continue
        curve = read_json(done.file("curve.json"))
        timing = done.file("logs/timing.json")
        config = done.manifest["config"]
        rows.append(
            doc.TrainingFacts(
                variant.name,
                len(curve["step"]),
                read_json(timing)["seconds"] if timing.is_file() else 0.0,
                (doc.Curve(measured, tuple(curve["step"]), tuple(curve["loss"])),),
                str(config.get("mode", config.get("method", ""))),
            )
        )
    return tuple(rows)


def _provenance(layout: Layout, recipe: Recipe, command: str) -> doc.Provenance:
    fingerprints, packages = {}, {}
    for name, path in layout.artifacts(recipe).items():
        if (artifact := _finished(path)) is not None:
            fingerprints[name] = artifact.fingerprint
            packages = artifact.manifest["packages"]
    return doc.Provenance(
        code=__version__,
        python=platform.python_version(),
        packages=packages,
        seeds={"recipe": recipe.seed},
        fingerprints={**fingerprints, "recipe": fingerprint_of(recipe)},
        backbone=recipe.backbone,
        recipe=yaml.safe_dump(to_plain(recipe), sort_keys=False, allow_unicode=True),
        command=command,
    )
