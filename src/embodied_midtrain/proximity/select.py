"""`emt select`: score every sample of the pool and keep the closest K (EmbodiedMidtrain, section 4)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Artifact, StageError, StageRun, atomic_path, open_stage, read_json, write_json
from embodied_midtrain.features.drawing import source_codes, take_rows
from embodied_midtrain.features.matching import check_same_space
from embodied_midtrain.features.store import FeatureStore, open_features
from embodied_midtrain.proximity.duplicates import near_duplicates
from embodied_midtrain.proximity.ranking import by_source
from embodied_midtrain.proximity.selectors import Given, Scored, SelectConfig, score_pool
from embodied_midtrain.proximity.shaping import gumbel, ranks, top_k


def select(
    out: Path,
    config: SelectConfig,
    *,
    pool: Artifact,
    target: Artifact,
    match: Artifact | None = None,
    scores: Artifact | None = None,
    before: Artifact | None = None,
    overwrite: bool = False,
) -> Artifact:
    """Score the pool's features against the target's and keep the first K.

    Streams: memory is some bytes for each sample, whatever the width of the features.

    The artifact holds `scores.parquet` (source, id, score, rank; every sample, in the pool's order),
    `selection.parquet` (the first K from the closest on, with the reason) and `selection.json` (the fit, percentiles
    by source, composition).

    Args:
        match: the selection whose counts per source `matched-random` takes.
        scores: an 'emt score' artifact of the same pool, for perplexity, delta-perplexity, text and influence.
        before: the perplexity under the backbone before it was tuned on the robot, for delta-perplexity.

    Raises:
        StageError: on K below 1 or above the pool's usable size, on features that cannot be compared.
        ValueError: on settings that cannot be meant.
    """
    config.check()
    given = Given(match, scores, before)
    given.check(config.selector, pool)
    inputs = {"pool": pool, "target": target, **given.inputs()}
    with open_stage(out, "select", config, inputs, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        check_same_space(pool, target)
        store = open_features(pool)
        names, codes = source_codes(store)
        scored = score_pool(run, config, store, target, given)
        found = scored.scores
        _note_unusable(run, store, scored)
        usable = int(np.isfinite(found).sum())
        if not 1 <= config.k <= usable:
            raise StageError(
                f"K is {config.k}, but the pool has {usable} usable samples: give --k between 1 and {usable}."
            )
        chosen, copies = _choose(config, scored, codes, names, store, match)
        if len(chosen) < config.k:
            raise StageError(
                f"only {len(chosen)} samples are left under a cap of {config.cap:.0%} for each of {len(names)} "
                f"sources and without {len(copies)} near-duplicates; raise --cap or --distinct, or lower --k."
            )
        reasons = _reasons(config, codes[chosen], names)
        place = ranks(found)
        _write(run, store, found, place, chosen, reasons)
        if config.distinct < 1:
            _write_copies(run, store, copies)
        have, kept = (np.bincount(c, minlength=len(names)) for c in (codes[np.isfinite(found)], codes[chosen]))
        facts = {
            "selector": config.selector,
            "estimator": scored.fit if config.selector == "estimator" else None,
            "fit": scored.fit,
            "by_source": by_source(names, codes, place, usable),
            "composition": dict(zip(names, kept.tolist(), strict=True)),
            "pool": dict(zip(names, have.tolist(), strict=True)),
            "near_duplicates": len(copies),
        }
        write_json(run.file("selection.json"), facts)
        return run.finish({"pool": usable, "selected": config.k})


def _note_unusable(run: StageRun, store: FeatureStore, scored: Scored) -> None:
    bad = np.flatnonzero(~np.isfinite(scored.scores))
    for source, id in zip(*_names(store, bad), strict=True):
        run.skips.add(scored.missing, f"{source}/{id}")


Copy = tuple[int, int, float]
"""A row that is left out, the better one that it nearly equals, and their cosine."""


def _choose(
    config: SelectConfig,
    scored: Scored,
    codes: NDArray[np.uint16],
    names: list[str],
    store: FeatureStore,
    match: Artifact | None,
) -> tuple[NDArray[np.int64], list[Copy]]:
    """Places of the selection, from the closest on, and the near-duplicates that were left out."""
    shaped = scored.scores
    if config.draw == "gumbel":
        assert scored.log_ratio is not None
        shaped = gumbel(scored.log_ratio(shaped), temperature=config.temperature, seed=config.seed)
    have = np.bincount(codes[np.isfinite(shaped)], minlength=len(names))
    caps = floors = None
    if config.selector == "matched-random":
        assert match is not None
        counts = read_json(match.file("selection.json"))["composition"]
        caps = floors = np.array([int(counts.get(name, 0)) for name in names])
        if int(caps.sum()) != config.k:
            raise StageError(f"{match.path} holds {int(caps.sum())} samples of this pool, K is {config.k}.")
    else:
        if config.cap < 1:
            caps = np.full(len(names), max(1, int(config.cap * config.k)))
        if config.floor > 0:
            floors = np.minimum(have, int(config.floor * config.k))
    chosen = top_k(shaped, config.k, codes=codes, caps=caps, floors=floors)
    copies: list[Copy] = []
    if config.distinct < 1:
        shaped = shaped.copy()
        while True:
            # What takes a duplicate's place can be one too.
            found = near_duplicates(_features(store, chosen), config.distinct, seed=config.seed)
            if not len(found.rows):
                break
            pairs = zip(chosen[found.rows].tolist(), chosen[found.of].tolist(), found.similarity.tolist(), strict=True)
            copies += pairs
            shaped[chosen[found.rows]] = np.nan
            chosen = top_k(shaped, config.k, codes=codes, caps=caps, floors=floors)
    return chosen, copies


def _features(store: FeatureStore, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Features of these rows, in their order: [len(rows), dim]."""
    order = np.argsort(rows)
    found = np.empty((len(rows), store.dim), np.float32)
    found[order] = take_rows(store, rows[order]).features
    return found


def _names(store: FeatureStore, rows: NDArray[np.int64]) -> tuple[list[str], list[str]]:
    """Sources and ids of these rows, in their order."""
    sources, ids = [""] * len(rows), [""] * len(rows)
    order = np.argsort(rows, kind="stable")
    for first, last, source, id in _keys(store):
        low, high = np.searchsorted(rows[order], [first, last])
        for n in order[low:high].tolist():
            row = int(rows[n]) - first
            sources[n], ids[n] = source[row].as_py(), id[row].as_py()
    return sources, ids


def _write_copies(run: StageRun, store: FeatureStore, copies: list[Copy]) -> None:
    columns: dict[str, Any] = {}
    for n, prefix in enumerate(("", "of_")):
        names = _names(store, np.array([copy[n] for copy in copies], np.int64))
        columns |= {f"{prefix}source": names[0], f"{prefix}id": names[1]}
    columns["similarity"] = pa.array([copy[2] for copy in copies], pa.float32())
    with atomic_path(run.file("near_duplicates.parquet")) as path:
        pq.write_table(pa.table(columns), path)


def _reasons(config: SelectConfig, codes: NDArray[np.uint16], names: list[str]) -> list[str]:
    how = {
        "random": "drawn at random",
        "matched-random": "drawn at random, with the counts per source of another selection",
    }.get(config.selector, f"among the {config.k} closest by {config.selector}")
    if config.draw == "gumbel":
        how = f"drawn in proportion to the ratio by {config.selector}"
    if config.distinct < 1:
        how += f", no near-duplicates (cosine above {config.distinct:g})"
    if config.cap < 1 or config.floor > 0:
        how += f" (a source has {config.floor:.0%} to {config.cap:.0%})"
    return [how] * len(codes)


def _write(
    run: StageRun,
    store: FeatureStore,
    scores: NDArray[np.float32],
    place: NDArray[np.integer],
    chosen: NDArray[np.int64],
    reasons: list[str],
) -> None:
    with atomic_path(run.file("scores.parquet")) as path:
        schema = pa.schema(
            [("source", pa.string()), ("id", pa.string()), ("score", pa.float32()), ("rank", pa.int64())]
        )
        with pq.ParquetWriter(path, schema, write_statistics=False) as writer:
            for first, last, source, id in _keys(store):
                rows = np.flatnonzero(np.isfinite(scores[first:last]))
                columns = [scores[first:last][rows], place[first:last][rows].astype(np.int64)]
                writer.write_table(pa.table([source.take(rows), id.take(rows), *columns], schema=schema))
    names = _names(store, chosen)
    table = {
        "source": names[0],
        "id": names[1],
        "score": pa.array(scores[chosen], pa.float32()),
        "rank": pa.array(np.arange(len(chosen)), pa.int64()),
        "reason": reasons,
    }
    with atomic_path(run.file("selection.parquet")) as path:
        pq.write_table(pa.table(table), path)


def _keys(store: FeatureStore) -> Iterator[tuple[int, int, pa.Array, pa.Array]]:
    """First place, the one after the last, sources and ids of each shard."""
    first = 0
    for shard in store.shards:
        source, id = shard.keys()
        yield first, first + shard.rows, source, id
        first += shard.rows


def read_selection(selection: Artifact) -> list[tuple[str, str]]:
    """The chosen (source, id), from the closest on."""
    table = pq.read_table(selection.file("selection.parquet"), columns=["source", "id"])
    return list(zip(table["source"].to_pylist(), table["id"].to_pylist(), strict=True))


def select_command(
    pool: Path,
    target: Path,
    out: Path,
    config: SelectConfig = SelectConfig(),
    match: Path | None = None,
    scores: Path | None = None,
    before: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Score every sample of the pool by its proximity to the target, and keep the closest K.

    Examples:
        emt select --pool runs/mine/pool-features --target runs/mine/target-features --k 1000 --out runs/mine/selected
        emt select --pool runs/mine/pool-features --target runs/mine/target-features --k 1000 --selector knn-distance \\
            --cap 0.3 --out runs/mine/nearest
        emt select --pool runs/mine/pool-features --target runs/mine/target-features --k 1000 \\
            --selector matched-random --match runs/mine/selected --out runs/mine/control
        emt select --pool runs/mine/pool-features --target runs/mine/target-features --k 1000 \\
            --selector delta-perplexity --scores runs/mine/perplexity --before runs/mine/perplexity-before \\
            --out runs/mine/by-delta
        emt select --pool runs/mine/pool-features --target runs/mine/target-features --k 1000 \\
            --draw gumbel --calibration temperature --distinct 0.95 --out runs/mine/spread

    Args:
        pool: features of the pool (an 'emt embed' folder).
        target: features of the target.
        out: folder for scores and selection.
        match: the selection whose counts per source matched-random takes.
        scores: an 'emt score' folder of the same pool, for perplexity, delta-perplexity, text and influence.
        before: perplexity under the backbone before it was tuned on the robot, for delta-perplexity.
        overwrite: replace a result that was made from other inputs or settings.
    """
    artifact = select(
        out,
        config,
        pool=Artifact.open(pool, "embed"),
        target=Artifact.open(target, "embed"),
        match=Artifact.given(match, "select"),
        scores=Artifact.given(scores, "score"),
        before=Artifact.given(before, "score"),
        overwrite=overwrite,
    )
    facts = read_json(artifact.file("selection.json"))
    if facts["estimator"]:
        fit = facts["estimator"]
        print(f"validation accuracy {fit['accuracy']:.1%} after {fit['steps']} steps (stopped by {fit['stopped_by']})")
        for note in fit["notes"]:
            print(f"note: {note}")
    print(f"{'source':<24}{'pool':>8}{'kept':>8}{'median percentile':>20}")
    rows = sorted(facts["by_source"].items(), key=lambda row: -row[1]["median"])
    for name, row in rows:
        print(f"{name:<24}{facts['pool'][name]:>8}{facts['composition'][name]:>8}{row['median']:>20.1f}")
