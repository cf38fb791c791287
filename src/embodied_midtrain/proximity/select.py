"""`emt select`: score every sample of the pool and keep the closest K (EmbodiedMidtrain, section 4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Artifact, StageError, StageRun, atomic_path, open_stage, read_json, write_json
from embodied_midtrain.features.drawing import draw_rows, source_codes
from embodied_midtrain.features.matching import check_same_space
from embodied_midtrain.features.store import FeatureStore, open_features, read_features
from embodied_midtrain.proximity.distance import MeanDistance, NearestDistance
from embodied_midtrain.proximity.estimator import EstimatorConfig, fit_estimator
from embodied_midtrain.proximity.ranking import by_source
from embodied_midtrain.proximity.scoring import Scorer, score_store
from embodied_midtrain.proximity.shaping import gumbel, ranks, top_k

Selector = Literal["estimator", "mean-distance", "knn-distance", "random", "matched-random"]


@dataclass(frozen=True)
class SelectConfig:
    """What is kept of the pool, and by which measure."""

    selector: Selector = "estimator"
    """The learned proximity estimator; mean distance to the target, or to the nearest of it; a uniform draw; a uniform
    draw with the counts per source of another selection."""
    k: int = 1000
    """Samples to keep."""
    seed: int = 0
    """Draws, batches and splits."""
    draw: Literal["top", "gumbel"] = "top"
    """The K highest scores, or a draw in proportion to the density ratio (estimator)."""
    temperature: float = 1.0
    """Of that draw: below 1 nearer to the hard cut, above 1 nearer to a uniform draw."""
    cap: float = 1.0
    """Share of the selection that one source may have."""
    floor: float = 0.0
    """Share of the selection that each source has at least, as far as it has samples."""
    fit_rows: int = 200_000
    """Rows of the pool that a measure is fitted to, drawn with the seed."""
    neighbours: int = 10
    """Of knn-distance."""
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)

    def check(self) -> None:
        """Raise ValueError on settings that cannot be meant."""
        if not 0 < self.cap <= 1 or not 0 <= self.floor <= 1:
            raise ValueError(f"cap {self.cap} and floor {self.floor} are shares: above 0 (or 0), at most 1")
        if self.draw == "gumbel" and self.selector != "estimator":
            raise ValueError(f"{self.selector} gives no density ratio to draw in proportion to; use --draw top")


def select(
    out: Path,
    config: SelectConfig,
    *,
    pool: Artifact,
    target: Artifact,
    match: Artifact | None = None,
    overwrite: bool = False,
) -> Artifact:
    """Score the pool's features against the target's and keep the first K.

    Streams: memory is some bytes for each sample, whatever the width of the features.

    The artifact holds `scores.parquet` (source, id, score, rank; every sample, in the pool's order),
    `selection.parquet` (the first K from the closest on, with the reason) and `selection.json` (the fit, percentiles
    by source, composition).

    Args:
        match: the selection whose counts per source `matched-random` takes.

    Raises:
        StageError: on K below 1 or above the pool's usable size, on features that cannot be compared.
        ValueError: on settings that cannot be meant.
    """
    config.check()
    inputs = {"pool": pool, "target": target, **({"match": match} if match is not None else {})}
    with open_stage(out, "select", config, inputs, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        check_same_space(pool, target)
        store = open_features(pool)
        names, codes = source_codes(store)
        scores, fit = _score(run, config, store, target)
        _note_unusable(run, store, scores)
        usable = int(np.isfinite(scores).sum())
        if not 1 <= config.k <= usable:
            raise StageError(
                f"K is {config.k}, but the pool has {usable} usable samples: give --k between 1 and {usable}."
            )
        chosen = _choose(config, scores, codes, names, match)
        if len(chosen) < config.k:
            raise StageError(
                f"only {len(chosen)} samples are left under a cap of {config.cap:.0%} for each of {len(names)} "
                "sources; raise --cap, or lower --k."
            )
        reasons = _reasons(config, codes[chosen], names)
        place = ranks(scores)
        _write(run, store, scores, place, chosen, reasons)
        have, kept = (np.bincount(c, minlength=len(names)) for c in (codes[np.isfinite(scores)], codes[chosen]))
        facts = {
            "selector": config.selector,
            "estimator": fit,
            "by_source": by_source(names, codes, place, usable),
            "composition": dict(zip(names, kept.tolist(), strict=True)),
            "pool": dict(zip(names, have.tolist(), strict=True)),
        }
        write_json(run.file("selection.json"), facts)
        return run.finish({"pool": usable, "selected": config.k})


def _score(
    run: StageRun, config: SelectConfig, store: FeatureStore, target: Artifact
) -> tuple[NDArray[np.float32], dict[str, Any] | None]:
    """Scores in the store's order; NaN where a feature cannot be used."""
    if config.selector in ("random", "matched-random"):
        return np.random.default_rng(config.seed).random(store.rows, dtype=np.float32), None
    near = read_features(target, run.skips)
    fit: dict[str, Any] | None = None
    scorer: Scorer
    if config.selector == "estimator":
        fitted = fit_estimator(draw_rows(store, config.fit_rows, config.seed), near, config.estimator, seed=config.seed)
        with atomic_path(run.file("estimator.npz")) as path, path.open("wb") as file:
            np.savez(file, mean=fitted.mean, std=fitted.std, weight=fitted.weight, bias=fitted.bias)
        fit = {
            "accuracy": fitted.accuracy,
            "steps": fitted.steps,
            "stopped_by": fitted.stopped_by,
            "curve": fitted.curve,
            "notes": fitted.notes,
        }
        scorer = fitted
    elif config.selector == "mean-distance":
        scorer = MeanDistance(near.features)
    else:
        scorer = NearestDistance(near.features, config.neighbours)
    return score_store(scorer, store), fit


def _note_unusable(run: StageRun, store: FeatureStore, scores: NDArray[np.float32]) -> None:
    bad = np.flatnonzero(~np.isfinite(scores))
    first = 0
    for shard in store.shards:
        own = bad[(bad >= first) & (bad < first + shard.rows)] - first
        if len(own):
            sources, ids = shard.keys()
            for row in own.tolist():
                run.skips.add("nan feature", f"{sources[row]}/{ids[row]}")
        first += shard.rows


def _choose(
    config: SelectConfig,
    scores: NDArray[np.float32],
    codes: NDArray[np.uint16],
    names: list[str],
    match: Artifact | None,
) -> NDArray[np.int64]:
    """Places of the selection, from the closest on."""
    if config.selector == "matched-random":
        if match is None:
            raise StageError("matched-random takes the counts of another selection; give its folder with --match.")
        counts = read_json(match.file("selection.json"))["composition"]
        wanted = np.array([int(counts.get(name, 0)) for name in names])
        if int(wanted.sum()) != config.k:
            raise StageError(f"{match.path} holds {int(wanted.sum())} samples of this pool, K is {config.k}.")
        return top_k(scores, config.k, codes=codes, floors=wanted, caps=wanted)
    shaped = scores
    if config.draw == "gumbel":
        with np.errstate(divide="ignore", invalid="ignore"):
            # At its optimum the estimator says p_target / (p_target + p_pool).
            log_ratio = np.log(np.maximum(scores / (1 - scores), 1e-30))
        shaped = gumbel(log_ratio, temperature=config.temperature, seed=config.seed)
    caps = floors = None
    if config.cap < 1:
        caps = np.full(len(names), max(1, int(config.cap * config.k)))
    if config.floor > 0:
        have = np.bincount(codes[np.isfinite(scores)], minlength=len(names))
        floors = np.minimum(have, int(config.floor * config.k))
    return top_k(shaped, config.k, codes=codes, caps=caps, floors=floors)


def _reasons(config: SelectConfig, codes: NDArray[np.uint16], names: list[str]) -> list[str]:
    how = {
        "random": "drawn at random",
        "matched-random": "drawn at random, with the counts per source of another selection",
    }.get(config.selector, f"among the {config.k} closest by {config.selector}")
    if config.draw == "gumbel":
        how = f"drawn in proportion to the ratio by {config.selector}"
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
    picked: dict[str, list[str]] = {"source": [""] * len(chosen), "id": [""] * len(chosen)}
    at_row = np.argsort(chosen, kind="stable")
    with atomic_path(run.file("scores.parquet")) as path:
        schema = pa.schema(
            [("source", pa.string()), ("id", pa.string()), ("score", pa.float32()), ("rank", pa.int64())]
        )
        with pq.ParquetWriter(path, schema, write_statistics=False) as writer:
            for first, last, source, id in _keys(store):
                rows = np.flatnonzero(np.isfinite(scores[first:last]))
                columns = [scores[first:last][rows], place[first:last][rows].astype(np.int64)]
                writer.write_table(pa.table([source.take(rows), id.take(rows), *columns], schema=schema))
                low, high = np.searchsorted(chosen[at_row], [first, last])
                for n in at_row[low:high].tolist():
                    row = int(chosen[n]) - first
                    picked["source"][n], picked["id"][n] = source[row].as_py(), id[row].as_py()
    table = {
        **picked,
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
    overwrite: bool = False,
) -> None:
    """Score every sample of the pool by its proximity to the target, and keep the closest K.

    Examples:
        emt select --pool runs/mine/pool-features --target runs/mine/target-features --k 1000 --out runs/mine/selected
        emt select --pool runs/mine/pool-features --target runs/mine/target-features --k 1000 --selector knn-distance \
            --cap 0.3 --out runs/mine/nearest
        emt select --pool runs/mine/pool-features --target runs/mine/target-features --k 1000 \
            --selector matched-random --match runs/mine/selected --out runs/mine/control

    Args:
        pool: features of the pool (an 'emt embed' folder).
        target: features of the target.
        out: folder for scores and selection.
        match: the selection whose counts per source matched-random takes.
        overwrite: replace a result that was made from other inputs or settings.
    """
    artifact = select(
        out,
        config,
        pool=Artifact.open(pool, "embed"),
        target=Artifact.open(target, "embed"),
        match=Artifact.open(match, "select") if match is not None else None,
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
