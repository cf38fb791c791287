"""The whole stage on stores whose gaps are known."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from embodied_midtrain.artifacts import Artifact, StageError, open_stage, read_json, write_json
from embodied_midtrain.gap.measure import GapConfig, measure_gap, source_groups
from embodied_midtrain.gap.mmd import squared_mmd
from tests.proximity.test_select import store

CONFIG = GapConfig(map_points=60, permutations=99)


def stores(tmp_path: Path) -> tuple[Artifact, Artifact]:
    rng = np.random.default_rng(0)
    target = rng.normal(0, 1, (120, 6))
    pool = {
        "alike": rng.normal(0, 1, (120, 6)),
        "apart": rng.normal(1.5, 1, (90, 6)),
        "also": rng.normal(1.5, 1, (60, 6)),
    }
    return store(tmp_path / "pool", pool), store(tmp_path / "target", {"a": target[:70], "b": target[70:]})


def test_every_source_group_and_the_pool(tmp_path: Path) -> None:
    pool, target = stores(tmp_path)
    groups = {"apart": "far", "also": "far", "alike": "near"}
    gap = measure_gap(tmp_path / "gap", CONFIG, pool=pool, target=target, groups=groups)
    facts = read_json(gap.file("mmd.json"))
    assert facts["names"] == ["alike", "also", "apart", "group: far", "pool", "target: a", "target: b", "target"]
    to_target = dict(zip(facts["names"], facts["matrix"][-1], strict=True))
    assert to_target["alike"] < 0.02 < 0.1 < to_target["group: far"]
    p = {name: row["p"] for name, row in facts["p_values"].items()}
    assert p["alike"] > 0.05 and p["apart"] == p["group: far"] == 0.01
    # One frame of each of the 14 + 10 episodes of five frames.
    assert facts["p_values"]["alike"]["rows"] == [120, 24]
    distance = {name: row["a_distance"] for name, row in facts["a_distance"].items()}
    assert distance["alike"] < 0.6 < 1.5 < distance["apart"]
    assert np.asarray(facts["biased"]).min() >= 0 and set(p) == {"alike", "also", "apart", "group: far", "pool"}
    assert set(read_json(gap.file("diversity.json"))) == set(facts["names"])
    drawn = pq.read_table(gap.file("map.parquet")).to_pydict()
    assert len(drawn["x"]) == 60 and drawn["kind"].count("target") == 20


def test_the_matrix_is_the_formula_on_the_rows_drawn(tmp_path: Path) -> None:
    pool, target = stores(tmp_path)
    facts = read_json(measure_gap(tmp_path / "gap", CONFIG, pool=pool, target=target).file("mmd.json"))
    from embodied_midtrain.features.store import read_features

    apart, whole = (pooled := read_features(pool)).features[pooled.sources == "apart"], read_features(target).features
    at = facts["names"].index("apart")
    assert facts["matrix"][at][-1] == pytest.approx(squared_mmd(apart, whole, facts["sigma"]), abs=1e-6)


def test_only_what_is_drawn_is_measured(tmp_path: Path) -> None:
    pool, target = stores(tmp_path)
    config = GapConfig(rows_per_group=40, most_tasks=1, map_points=50, permutations=0)
    facts = read_json(measure_gap(tmp_path / "gap", config, pool=pool, target=target).file("mmd.json"))
    assert set(facts["rows"].values()) == {40}
    assert facts["names"][-2:] == ["target: a", "target"] and facts["p_values"] == {}


def test_groups_come_from_the_pools_manifest(tmp_path: Path) -> None:
    with open_stage(tmp_path / "pool", "pool build", {}, {}) as run:
        write_json(run.file("x.json"), 1)
        run.finish({"sources": {"s": {"group": "scene"}, "t": {}}})
    assert source_groups(tmp_path / "pool") == {"s": "scene"}
    assert source_groups(tmp_path / "nothing") == {}


def test_one_row_is_no_gap(tmp_path: Path) -> None:
    pool, _ = stores(tmp_path)
    lonely = store(tmp_path / "lonely", {"a": np.zeros((1, 6))})
    with pytest.raises(StageError, match="at least two on each side"):
        measure_gap(tmp_path / "gap", CONFIG, pool=pool, target=lonely)


def test_umap(tmp_path: Path) -> None:
    pytest.importorskip("umap")
    from embodied_midtrain.gap.map import map_2d

    rows = np.random.default_rng(0).normal(0, 1, (40, 5)).astype("f")
    rows[20:] += 8
    points = map_2d(rows, how="umap")
    assert points.shape == (40, 2) and points.min() == 0 and points.max() == 1
    assert np.linalg.norm(points[:20].mean(0) - points[20:].mean(0)) > 0.3
