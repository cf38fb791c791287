"""`emt select`: score every sample of the pool and keep the closest K (EmbodiedMidtrain, section 4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Artifact, StageError, StageRun, atomic_path, open_stage, read_json, write_json
from embodied_midtrain.features.matching import check_same_space
from embodied_midtrain.features.store import FeatureTable, read_features
from embodied_midtrain.proximity.estimator import EstimatorConfig, fit_estimator
from embodied_midtrain.proximity.ranking import by_source, rank_order

Selector = Literal["estimator", "random"]


@dataclass(frozen=True)
class SelectConfig:
    """What is kept of the pool, and by which measure."""

    selector: Selector = "estimator"
    """The learned proximity estimator, or a uniform draw as the control."""
    k: int = 1000
    """Samples to keep."""
    seed: int = 0
    """Draws, batches and splits."""
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)


def select(out: Path, config: SelectConfig, *, pool: Artifact, target: Artifact, overwrite: bool = False) -> Artifact:
    """Score the pool's features against the target's and keep the first K.

    The artifact holds `scores.parquet` (source, id, score, rank; every sample), `selection.parquet` (the first K,
    with the reason) and `selection.json` (the estimator's fit, percentiles by source, composition).

    Raises:
        StageError: on K below 1 or above the pool's usable size, on features that cannot be compared.
    """
    with open_stage(out, "select", config, {"pool": pool, "target": target}, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        check_same_space(pool, target)
        table = read_features(pool, run.skips)
        if not 1 <= config.k <= len(table):
            raise StageError(
                f"K is {config.k}, but the pool has {len(table)} usable samples: give --k between 1 and {len(table)}."
            )
        scores, fit = _score(run, config, table, target)
        keys = list(zip(table.sources.tolist(), table.ids.tolist(), strict=True))
        order = rank_order(scores, keys)
        _write(run, table, scores, order, config)
        kept = table.sources[order[: config.k]]
        facts = {
            "selector": config.selector,
            "estimator": fit,
            "by_source": by_source(table.sources, scores),
            "composition": {name: int((kept == name).sum()) for name in table.source_names()},
            "pool": {name: int((table.sources == name).sum()) for name in table.source_names()},
        }
        write_json(run.file("selection.json"), facts)
        return run.finish({"pool": len(table), "selected": config.k})


def _score(
    run: StageRun, config: SelectConfig, pool: FeatureTable, target: Artifact
) -> tuple[NDArray[np.float32], dict[str, Any] | None]:
    if config.selector == "random":
        return np.random.default_rng(config.seed).random(len(pool), dtype=np.float32), None
    fitted = fit_estimator(pool, read_features(target, run.skips), config.estimator, seed=config.seed)
    with atomic_path(run.file("estimator.npz")) as path, path.open("wb") as file:
        np.savez(file, mean=fitted.mean, std=fitted.std, weight=fitted.weight, bias=fitted.bias)
    fit = {
        "accuracy": fitted.accuracy,
        "steps": fitted.steps,
        "stopped_by": fitted.stopped_by,
        "curve": fitted.curve,
        "notes": fitted.notes,
    }
    return fitted.scores(pool.features), fit


def _write(
    run: StageRun, table: FeatureTable, scores: NDArray[np.float32], order: NDArray[np.intp], config: SelectConfig
) -> None:
    ranked = {
        "source": pa.array(table.sources[order].tolist()),
        "id": pa.array(table.ids[order].tolist()),
        "score": pa.array(scores[order], pa.float32()),
        "rank": pa.array(np.arange(len(order)), pa.int64()),
    }
    with atomic_path(run.file("scores.parquet")) as path:
        pq.write_table(pa.table(ranked), path)
    reason = "drawn at random" if config.selector == "random" else f"among the {config.k} closest"
    first = pa.table(ranked).slice(0, config.k)
    with atomic_path(run.file("selection.parquet")) as path:
        pq.write_table(first.append_column("reason", pa.array([reason] * config.k)), path)


def read_selection(selection: Artifact) -> list[tuple[str, str]]:
    """The chosen (source, id), from the closest on."""
    table = pq.read_table(selection.file("selection.parquet"), columns=["source", "id"])
    return list(zip(table["source"].to_pylist(), table["id"].to_pylist(), strict=True))


def select_command(
    pool: Path, target: Path, out: Path, config: SelectConfig = SelectConfig(), overwrite: bool = False
) -> None:
    """Score every sample of the pool by its proximity to the target, and keep the closest K.

    Examples:
        emt select --pool runs/mine/pool-features --target runs/mine/target-features --k 1000 --out runs/mine/selected
        emt select --pool runs/mine/pool-features --target runs/mine/target-features --k 1000 --selector random \
            --out runs/mine/random

    Args:
        pool: features of the pool (an 'emt embed' folder).
        target: features of the target.
        out: folder for scores and selection.
        overwrite: replace a result that was made from other inputs or settings.
    """
    artifact = select(
        out, config, pool=Artifact.open(pool, "embed"), target=Artifact.open(target, "embed"), overwrite=overwrite
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
