"""`emt gap`: how far pool and target are apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embodied_midtrain.artifacts import (
    Artifact,
    StageError,
    StageRun,
    atomic_path,
    fingerprint_of,
    open_stage,
    read_json,
    write_json,
)
from embodied_midtrain.features.drawing import draw_of, draw_places, source_codes, take_rows
from embodied_midtrain.features.matching import check_same_space
from embodied_midtrain.features.splits import episodes_of, one_of_each
from embodied_midtrain.features.store import FeatureStore, FeatureTable, open_features
from embodied_midtrain.gap.diversity import diversity
from embodied_midtrain.gap.map import map_2d
from embodied_midtrain.gap.mmd import median_bandwidth, mmd_matrix
from embodied_midtrain.gap.permutation import ASSUMES, permutation_test
from embodied_midtrain.gap.probe import cross_validated

TARGET = "target"
POOL = "pool"
GROUP = "group: "


@dataclass(frozen=True)
class GapConfig:
    """How the gap is measured."""

    rows_per_group: int = 1000
    """At most so many features of a source, group, task, pool or target are measured, drawn with the seed."""
    most_tasks: int = 20
    """Tasks of the target that are measured each for itself, those with the most frames; all are in the target."""
    permutations: int = 999
    """Of each test: the smallest p-value is one in a thousand. 0: no tests."""
    folds: int = 5
    """Of the probe that tells sides apart; an episode is in one fold."""
    map_points: int = 3000
    """Points on the 2-D map, of pool and target together."""
    map: Literal["tsne", "umap"] = "tsne"
    """How the map is made; umap needs the extra of that name."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where kernels are computed; auto: on a GPU where there is one."""
    seed: int = 0
    """Draws, permutations, folds and the map."""


@dataclass(frozen=True)
class Side:
    """What was drawn of one store.

    Attributes:
        rows: all that was drawn, in the store's order.
        of: places in `rows` of each source or task, of each group, and of the whole side, by name.
        on_map: places of what may be on the map.
    """

    rows: FeatureTable
    of: dict[str, NDArray[np.int64]]
    on_map: NDArray[np.int64]

    def features(self, name: str) -> NDArray[np.float32]:
        return self.rows.features[self.of[name]]


def measure_gap(
    out: Path,
    config: GapConfig,
    *,
    pool: Artifact,
    target: Artifact,
    groups: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Artifact:
    """MMD between all sources and the target, tests and probes of each, diversity of all, and a 2-D map.

    Reads each store once; memory is what is drawn, and some bytes a row.

    The artifact holds `mmd.json` (names, matrix, biased, sigma; p_values and a_distance of each source, group and the
    pool against the target; what the tests assume), `diversity.json` and `map.parquet` (kind, source, id, x, y).

    Args:
        groups: the group of each source, such as "scene"; a group of one source is that source, and not shown twice.

    Raises:
        StageError: where a store is empty or the two stores are of different backbones.
    """
    inputs: dict[str, Artifact | str] = {"pool": pool, "target": target}
    if groups:
        inputs["groups"] = fingerprint_of(dict(groups))
    with open_stage(out, "gap", config, inputs, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        check_same_space(pool, target)
        stores = open_features(pool), open_features(target)
        near = _draw(run, stores[0], config, POOL, _several(groups or {}))
        far = _draw(run, stores[1], config, TARGET, {})
        measured = {name: near.features(name) for name in near.of}
        # Each task is a tight cluster of its own: the target counts as one mixture beside its tasks.
        measured |= {name if name == TARGET else f"{TARGET}: {name}": far.features(name) for name in far.of}
        sigma = median_bandwidth(np.concatenate([near.features(POOL), far.features(TARGET)]), seed=config.seed)
        found = mmd_matrix(measured, sigma, device=config.device)
        write_json(
            run.file("mmd.json"),
            {
                "names": found.names,
                "matrix": found.unbiased.tolist(),
                "biased": found.biased.tolist(),
                "sigma": sigma,
                "rows": {name: len(rows) for name, rows in measured.items()},
                **_tests(near, far, sigma, config),
            },
        )
        write_json(run.file("diversity.json"), {name: diversity(rows) for name, rows in measured.items()})
        with atomic_path(run.file("map.parquet")) as path:
            pq.write_table(_map_table(near, far, config), path)
        return run.finish({"pool": stores[0].rows, "target": stores[1].rows})


def source_groups(pool: Path | str) -> dict[str, str]:
    """The group of each source, where the pool is an artifact whose manifest names them; else empty."""
    if not (Path(pool) / "manifest.json").is_file():
        return {}
    sources = Artifact.open(Path(pool)).counts.get("sources", {})
    return {name: facts["group"] for name, facts in sources.items() if facts.get("group")}


def _several(groups: Mapping[str, str]) -> dict[str, str]:
    """Without groups of one source only."""
    sizes = Counter(groups.values())
    return {source: group for source, group in groups.items() if sizes[group] > 1}


def _draw(run: StageRun, store: FeatureStore, config: GapConfig, whole: str, groups: Mapping[str, str]) -> Side:
    """Rows of a store for everything that is measured of it, in one pass."""
    names, codes = source_codes(store)
    counts = np.bincount(codes, minlength=len(names))
    most = config.most_tasks if whole == TARGET else len(names)
    shown = sorted(np.argsort(-counts, kind="stable")[:most].tolist())
    wanted = {names[n]: [n] for n in shown}
    for group in sorted({groups[name] for name in names if name in groups}):
        wanted[GROUP + group] = [n for n, name in enumerate(names) if groups.get(name) == group]
    wanted[whole] = list(range(len(names)))
    drawn = {name: draw_of(codes, own, config.rows_per_group, config.seed) for name, own in wanted.items()}
    on_map = draw_of(codes, wanted[whole], config.map_points, config.seed + 1)
    places = np.unique(np.concatenate([*drawn.values(), on_map]))
    table = take_rows(store, places)
    finite = np.isfinite(table.features).all(axis=1)
    for row in np.flatnonzero(~finite).tolist():
        run.skips.add("nan feature", f"{table.sources[row]}/{table.ids[row]}")
    rows, places = table.at(finite), places[finite]
    of = {name: np.flatnonzero(np.isin(places, own)) for name, own in drawn.items()}
    if len(of[whole]) < 2:
        raise StageError(f"{store.path} holds {len(of[whole])} usable features; a gap needs at least two on each side.")
    # One row has no distance to another of its own.
    of = {name: own for name, own in of.items() if len(own) >= 2}
    return Side(rows, of, np.flatnonzero(np.isin(places, on_map)))


def _tests(near: Side, far: Side, sigma: float, config: GapConfig) -> dict[str, Any]:
    """Of each source, each group and the pool against the target."""
    target = far.of[TARGET]
    episodes = episodes_of(far.rows)
    singles = target[one_of_each(episodes[target], np.random.default_rng(config.seed))]
    p_values, distances = {}, {}
    for name in near.of:
        rows = near.features(name)
        if config.permutations and len(singles) >= 2:
            tested = permutation_test(
                rows,
                far.rows.features[singles],
                sigma,
                permutations=config.permutations,
                seed=config.seed,
                device=config.device,
            )
            p_values[name] = {"p": tested.p, "mmd": tested.mmd, "rows": tested.rows}
        if min(len(rows), len(target)) >= 2 * config.folds:
            probe = cross_validated(
                rows, far.features(TARGET), episodes=episodes[target], count=config.folds, seed=config.seed
            )
            distances[name] = {"a_distance": probe.a_distance, "accuracy": probe.accuracy, "spread": probe.spread}
    return {
        "p_values": p_values,
        "permutations": config.permutations,
        "p_assumes": ASSUMES,
        "a_distance": distances,
    }


def _map_table(near: Side, far: Side, config: GapConfig) -> pa.Table:
    for_target = min(len(far.on_map), config.map_points // 3)
    for_pool = min(len(near.on_map), config.map_points - for_target)
    sides = [(POOL, near, for_pool), (TARGET, far, for_target)]
    chosen = [draw_places(side.on_map, count, config.seed) for _, side, count in sides]
    joined = np.concatenate([side.rows.features[own] for (_, side, _), own in zip(sides, chosen, strict=True)])
    points = map_2d(joined, how=config.map, seed=config.seed)
    return pa.table(
        {
            "kind": [kind for (kind, _, _), own in zip(sides, chosen, strict=True) for _ in own],
            "source": [s for (_, side, _), own in zip(sides, chosen, strict=True) for s in side.rows.sources[own]],
            "id": [i for (_, side, _), own in zip(sides, chosen, strict=True) for i in side.rows.ids[own]],
            "x": points[:, 0],
            "y": points[:, 1],
        }
    )


def gap_command(
    pool: Path,
    target: Path,
    out: Path,
    config: GapConfig = GapConfig(),
    samples: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Measure how far pool and target are apart: pairwise MMD with tests, what a probe tells apart, diversity, a map.

    Examples:
        emt gap --pool runs/mine/pool-features --target runs/mine/target-features --out runs/mine/gap
        emt gap --pool runs/mine/pool-features --target runs/mine/target-features --samples runs/mine/pool \\
            --map umap --out runs/mine/gap

    Args:
        pool: features of the pool (an 'emt embed' folder).
        target: features of the target.
        out: folder for the result.
        samples: the pool artifact that was embedded: it names a group for each source, and groups are measured too.
        overwrite: replace a result that was made from other inputs or settings.
    """
    artifact = measure_gap(
        out,
        config,
        pool=Artifact.open(pool, "embed"),
        target=Artifact.open(target, "embed"),
        groups=source_groups(samples) if samples is not None else None,
        overwrite=overwrite,
    )
    mmd = read_json(artifact.file("mmd.json"))
    last = mmd["names"].index(TARGET)
    print(
        f"squared MMD to the target, 0 where nothing differs (Gaussian kernel, sigma {mmd['sigma']:.3g} by the median "
        "heuristic), its p-value,"
    )
    print("and the proxy A-distance (0: a probe cannot tell them apart; 2: it never errs):")
    pairs = sorted(zip(mmd["matrix"][last], mmd["names"], strict=True))
    own = [pair for pair in pairs if pair[1].startswith(f"{TARGET}: ")]
    for value, name in pairs:
        if name != TARGET and (value, name) not in own:
            tested, probed = mmd["p_values"].get(name), mmd["a_distance"].get(name)
            p = f"p {tested['p']:.3f}" if tested else ""
            distance = f"{probed['a_distance']:.2f}" if probed else ""
            print(f"  {value:8.4f}  {p:<9}{distance:<6}{name}")
    print("the target's own groups to the whole of it, for comparison:")
    print("\n".join(f"  {value:8.4f}  {name.removeprefix(f'{TARGET}: ')}" for value, name in own))
    print(f"p-values: {mmd['p_assumes']}")
