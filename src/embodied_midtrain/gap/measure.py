"""`emt gap`: how far pool and target are apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Artifact, atomic_path, open_stage, read_json, write_json
from embodied_midtrain.features.matching import check_same_space
from embodied_midtrain.features.store import FeatureTable, read_features
from embodied_midtrain.gap.diversity import diversity
from embodied_midtrain.gap.map import map_2d
from embodied_midtrain.gap.mmd import median_bandwidth, mmd_matrix

TARGET = "target"
POOL = "pool"


@dataclass(frozen=True)
class GapConfig:
    """How the gap is measured."""

    rows_per_group: int = 1000
    """At most so many features of a group enter the MMD, drawn with the seed."""
    map_points: int = 3000
    """Points on the 2-D map, of pool and target together."""
    seed: int = 0
    """Draws and the map."""


def measure_gap(out: Path, config: GapConfig, *, pool: Artifact, target: Artifact, overwrite: bool = False) -> Artifact:
    """MMD between all sources and the target, diversity of both, and a 2-D map.

    The artifact holds `mmd.json` (names, matrix, sigma), `diversity.json` and `map.parquet`
    (kind, source, id, x, y).

    Raises:
        StageError: where a store is empty or the two stores are of different backbones.
    """
    with open_stage(out, "gap", config, {"pool": pool, "target": target}, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        check_same_space(pool, target)
        near, far = read_features(pool, run.skips), read_features(target, run.skips)
        groups = {name: _draw(near.of(name), config) for name in near.source_names()}
        groups = {name: rows for name, rows in groups.items() if len(rows) >= 2}
        groups[POOL] = _draw(near.features, config)
        groups.update({f"{TARGET}: {name}": _draw(far.of(name), config) for name in far.source_names()})
        # Each task is a tight cluster of its own: the target counts as one mixture beside its tasks.
        groups[TARGET] = _draw(far.features, config)
        sigma = median_bandwidth(np.concatenate([groups[POOL], groups[TARGET]]), seed=config.seed)
        names, matrix = mmd_matrix(groups, sigma)
        write_json(run.file("mmd.json"), {"names": names, "matrix": matrix.tolist(), "sigma": sigma})
        write_json(
            run.file("diversity.json"),
            {POOL: diversity(groups[POOL]), TARGET: diversity(groups[TARGET])}
            | {name: diversity(rows) for name, rows in groups.items() if name not in (POOL, TARGET)},
        )
        with atomic_path(run.file("map.parquet")) as path:
            pq.write_table(_map_table(near, far, config), path)
        return run.finish({"pool": len(near), "target": len(far)})


def _draw(features: NDArray[np.float32], config: GapConfig) -> NDArray[np.float32]:
    if len(features) <= config.rows_per_group:
        return features
    rng = np.random.default_rng(config.seed)
    return features[np.sort(rng.choice(len(features), config.rows_per_group, replace=False))]


def _map_table(pool: FeatureTable, target: FeatureTable, config: GapConfig) -> pa.Table:
    rng = np.random.default_rng(config.seed)
    for_target = min(len(target), config.map_points // 3)
    for_pool = min(len(pool), config.map_points - for_target)
    a = np.sort(rng.choice(len(pool), for_pool, replace=False))
    b = np.sort(rng.choice(len(target), for_target, replace=False))
    points = map_2d(np.concatenate([pool.features[a], target.features[b]]), seed=config.seed)
    return pa.table(
        {
            "kind": [POOL] * len(a) + [TARGET] * len(b),
            "source": [*pool.sources[a].tolist(), *target.sources[b].tolist()],
            "id": [*pool.ids[a].tolist(), *target.ids[b].tolist()],
            "x": points[:, 0],
            "y": points[:, 1],
        }
    )


def gap_command(pool: Path, target: Path, out: Path, config: GapConfig = GapConfig(), overwrite: bool = False) -> None:
    """Measure how far pool and target are apart: pairwise MMD, diversity, and a 2-D map.

    Examples:
        emt gap --pool runs/mine/pool-features --target runs/mine/target-features --out runs/mine/gap

    Args:
        pool: features of the pool (an 'emt embed' folder).
        target: features of the target.
        out: folder for the result.
        overwrite: replace a result that was made from other inputs or settings.
    """
    artifact = measure_gap(
        out, config, pool=Artifact.open(pool, "embed"), target=Artifact.open(target, "embed"), overwrite=overwrite
    )
    mmd = read_json(artifact.file("mmd.json"))
    last = mmd["names"].index(TARGET)
    print(f"squared MMD to the target, 0 where nothing differs (Gaussian kernel, sigma {mmd['sigma']:.3g}):")
    pairs = sorted(zip(mmd["matrix"][last], mmd["names"], strict=True))
    own = [pair for pair in pairs if pair[1].startswith(f"{TARGET}: ")]
    print("\n".join(f"  {value:8.4f}  {name}" for value, name in pairs if name != TARGET and (value, name) not in own))
    print("the target's own groups to the whole of it, for comparison:")
    print("\n".join(f"  {value:8.4f}  {name.removeprefix(f'{TARGET}: ')}" for value, name in own))
