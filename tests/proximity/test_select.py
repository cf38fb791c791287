from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from embodied_midtrain.artifacts import Artifact, StageError, open_stage, read_json
from embodied_midtrain.features.drawing import draw_rows
from embodied_midtrain.features.store import FeatureTable, open_features, read_features, write_shard
from embodied_midtrain.proximity.estimator import EstimatorConfig, fit_estimator
from embodied_midtrain.proximity.ranking import agreement_within, by_source, percentiles, spearman, variance_between
from embodied_midtrain.proximity.select import read_selection, select
from embodied_midtrain.proximity.selectors import SelectConfig, Selector

DIM = 12


def store(out: Path, rows: dict[str, np.ndarray], backbone: str = "b") -> Artifact:
    with open_stage(out, "embed", {"pooling": "mean", "layer": -1}, {"backbone": backbone, "pool": str(out)}) as run:
        for number, (source, features) in enumerate(rows.items()):
            keys = [(source, f"{i // 5}/{i:04d}") for i in range(len(features))]
            write_shard(run.file(f"shard-{number:06d}.parquet"), keys, features.astype(np.float16))
        return run.finish({"used": sum(map(len, rows.values()))})


def gaussians(seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    far, near = rng.normal(0, 1, (300, DIM)), rng.normal(0, 1, (200, DIM))
    near[:, 0] += 1.8
    target = rng.normal(0, 1, (200, DIM))
    target[:, 0] += 4.0
    return {"far": far, "near": near}, {"task-a": target[:120], "task-b": target[120:]}


def stores(tmp_path: Path) -> tuple[Artifact, Artifact]:
    pool, target = gaussians()
    return store(tmp_path / "pool", pool), store(tmp_path / "target", target)


def test_the_estimator_ranks_by_the_density_ratio() -> None:
    rng = np.random.default_rng(3)
    pool, target = rng.normal(0, 1, (4000, DIM)), rng.normal(0, 1, (4000, DIM))
    target[:, 0] += 1.0
    names = np.array([f"{i:05d}/0" for i in range(4000)])
    side = np.full(4000, "s")
    fitted = fit_estimator(
        FeatureTable(side, names, pool.astype(np.float32)),
        FeatureTable(side, names, target.astype(np.float32)),
        EstimatorConfig(lr=1e-3, max_steps=1500, stop_accuracy=1.0),
    )
    # log p_target / p_pool = x_0 - 1/2 for these two Gaussians.
    assert spearman(fitted.scores(pool.astype(np.float32)), pool[:, 0]) > 0.97
    assert fitted.stopped_by == "max_steps" and any(note.startswith("not reached") for note in fitted.notes)


def test_the_stop_and_its_warnings() -> None:
    rng = np.random.default_rng(0)
    names = np.array([f"{i}/0" for i in range(100)])
    pool = FeatureTable(np.full(100, "p"), names, rng.normal(0, 0.01, (100, 4)).astype(np.float32))
    target = FeatureTable(np.full(100, "t"), names, rng.normal(5, 0.01, (100, 4)).astype(np.float32))
    fitted = fit_estimator(pool, target, EstimatorConfig(min_steps=1))
    assert fitted.stopped_by == "accuracy" and fitted.steps < 10 and fitted.notes[0].startswith("degenerate")
    assert len(fitted.curve) == fitted.steps and fitted.curve[-1] == fitted.accuracy >= 0.9
    longer = fit_estimator(pool, target, EstimatorConfig())
    assert longer.steps == 75 and "the 75 steps are min_steps" in longer.notes[0]


def test_rankings_of_two_seeds_agree_from_a_zero_start_only() -> None:
    # Two sides that differ at a glance, as an LM's hidden states of pool and robot do.
    rng = np.random.default_rng(5)
    wide, other = rng.normal(0, 1, (500, 400)).astype(np.float32), rng.normal(0.4, 1, (200, 400)).astype(np.float32)
    pool = FeatureTable(np.full(500, "p"), np.array([f"{n}/0" for n in range(500)]), wide)
    target = FeatureTable(np.full(200, "t"), np.array([f"{n}/0" for n in range(200)]), other)
    agreement = {}
    for start in ("zero", "random"):
        config = EstimatorConfig(start=start, min_steps=1 if start == "random" else 75)  # type: ignore[arg-type]
        first, second = (fit_estimator(pool, target, config, seed=n).scores(wide) for n in (0, 1))
        agreement[start] = spearman(first, second)
    assert agreement["zero"] > agreement["random"] + 0.2, str(agreement)


def test_constant_dimensions_do_no_harm() -> None:
    rng = np.random.default_rng(0)
    names = np.array([f"{i}/0" for i in range(100)])
    features = rng.normal(0, 1, (100, 4)).astype(np.float32)
    features[:, 2] = 7.0
    shifted = features + np.array([2, 0, 0, 0], np.float32)
    fitted = fit_estimator(FeatureTable(names, names, features), FeatureTable(names, names, shifted), EstimatorConfig())
    assert np.isfinite(fitted.scores(features)).all()


def test_selection_holds_the_closest(tmp_path: Path) -> None:
    pool, target = stores(tmp_path)
    artifact = select(tmp_path / "out", SelectConfig(k=100), pool=pool, target=target)
    facts = read_json(artifact.file("selection.json"))
    assert facts["by_source"]["near"]["median"] > 60 > 50 > facts["by_source"]["far"]["median"]
    assert sum(facts["composition"].values()) == 100 and facts["composition"]["near"] > 60
    scores = pq.read_table(artifact.file("scores.parquet"))
    assert len(scores) == 500 and sorted(scores["rank"].to_pylist()) == list(range(500))
    scores = scores.sort_by("rank")
    assert np.all(np.diff(scores["score"].to_numpy()) <= 0)
    chosen = pq.read_table(artifact.file("selection.parquet"))
    assert chosen["id"].to_pylist() == scores["id"].to_pylist()[:100]
    assert chosen["score"].to_pylist() == scores["score"].to_pylist()[:100]
    assert read_selection(artifact)[0] == (scores["source"][0].as_py(), scores["id"][0].as_py())
    again = select(tmp_path / "again", SelectConfig(k=100), pool=pool, target=target)
    assert again.manifest["files"] == artifact.manifest["files"]


def test_random_is_uniform_and_seeded(tmp_path: Path) -> None:
    pool, target = stores(tmp_path)
    first = select(tmp_path / "a", SelectConfig("random", k=250, seed=1), pool=pool, target=target)
    other = select(tmp_path / "b", SelectConfig("random", k=250, seed=2), pool=pool, target=target)
    assert set(read_selection(first)) != set(read_selection(other))
    assert 70 < read_json(first.file("selection.json"))["composition"]["near"] < 130


@pytest.mark.parametrize("k", [0, 501])
def test_k_outside_the_pool(tmp_path: Path, k: int) -> None:
    pool, target = stores(tmp_path)
    with pytest.raises(StageError, match=r"has 500 usable samples: give --k between 1 and 500"):
        select(tmp_path / "out", SelectConfig(k=k), pool=pool, target=target)


def test_nan_features_are_counted_and_left_out(tmp_path: Path) -> None:
    rows, target = gaussians()
    rows["far"][3] = np.nan
    rows["near"][0, 0] = np.inf
    artifact = select(
        tmp_path / "out", SelectConfig(k=10), pool=store(tmp_path / "p", rows), target=store(tmp_path / "t", target)
    )
    assert artifact.counts == {"pool": 498, "selected": 10, "skipped": {"nan feature": 2}}
    assert "far/0/0003" in (tmp_path / "out" / "skipped.jsonl").read_text()


def test_features_that_cannot_be_used(tmp_path: Path) -> None:
    rows, target = gaussians()
    pool = store(tmp_path / "p", rows)
    with pytest.raises(StageError, match=r"backbone: 'b' .*'other'"):
        select(tmp_path / "o1", SelectConfig(k=9), pool=pool, target=store(tmp_path / "t1", target, backbone="other"))
    with pytest.raises(StageError, match="every feature"):
        read_features(store(tmp_path / "t2", {"a": np.full((4, DIM), np.nan)}))
    with pytest.raises(StageError, match="no features"):
        read_features(store(tmp_path / "t3", {}))
    with pytest.raises(StageError, match="several widths"):
        read_features(store(tmp_path / "t4", {"a": np.zeros((4, 3)), "b": np.zeros((4, 2))}))
    with pytest.raises(StageError, match="at least 10"):
        select(tmp_path / "o2", SelectConfig(k=9), pool=pool, target=store(tmp_path / "t5", {"a": np.zeros((4, DIM))}))
    broken = store(tmp_path / "t6", target)
    broken.file("shard-000000.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(StageError, match="not a feature shard"):
        read_features(broken)


def test_a_pool_that_is_its_own_target_is_refused(tmp_path: Path) -> None:
    pool, target = stores(tmp_path)
    rows, _ = gaussians()
    for selector in ("estimator", "random", "mean-distance"):
        config = SelectConfig(k=9, selector=selector)
        with pytest.raises(StageError, match="are the same features"):
            select(tmp_path / selector, config, pool=pool, target=pool)
    with pytest.raises(StageError, match="holds no features"):
        select(tmp_path / "o1", SelectConfig(k=9), pool=pool, target=store(tmp_path / "empty", {}))
    with pytest.raises(StageError, match="holds no features"):
        select(tmp_path / "o2", SelectConfig(k=9), pool=store(tmp_path / "empty pool", {}), target=target)
    narrow = store(tmp_path / "narrow", {"a": rows["far"][:, :4]})
    with pytest.raises(StageError, match=rf"of {DIM} numbers in .*of 4 in"):
        select(tmp_path / "o3", SelectConfig(k=9), pool=pool, target=narrow)


def test_ranking_facts() -> None:
    scores = np.array([0.1, 0.5, 0.5, 0.9], np.float32)
    assert percentiles(scores).tolist() == [0, 50, 50, 100]
    places = np.array([3, 0, 2, 1, 9])
    facts = by_source(["x", "y", "z"], np.array([0, 1, 0, 1, 2], np.uint16), places, 4)
    assert facts["y"] == {
        "n": 2,
        "median": pytest.approx(100 * 5 / 6),
        "quartiles": [pytest.approx(75), pytest.approx(275 / 3)],
    }
    assert set(facts) == {"x", "y"}
    assert spearman(scores, -scores) == pytest.approx(-1)
    assert np.isnan(spearman(scores, np.ones(4)))
    sources = np.array(["a", "a", "b", "b"])
    assert variance_between(sources, np.array([1, 1, 2, 2], np.float32)) == pytest.approx(1)
    assert variance_between(sources, np.array([1, 2, 1, 2], np.float32)) == pytest.approx(0)
    twelve = np.arange(12, dtype=np.float32)
    assert agreement_within(np.array(["a"] * 12), twelve, twelve**2) == {"a": pytest.approx(1)}


@pytest.mark.parametrize("selector", ["mean-distance", "knn-distance"])
def test_every_measure_finds_what_lies_near(tmp_path: Path, selector: Selector) -> None:
    pool, target = stores(tmp_path)
    artifact = select(tmp_path / "out", SelectConfig(selector, k=100), pool=pool, target=target)
    facts = read_json(artifact.file("selection.json"))
    assert facts["composition"]["near"] > 60 and facts["estimator"] is None
    assert selector in pq.read_table(artifact.file("selection.parquet"))["reason"][0].as_py()


def test_a_control_with_the_same_counts_per_source(tmp_path: Path) -> None:
    pool, target = stores(tmp_path)
    first = select(tmp_path / "a", SelectConfig(k=100), pool=pool, target=target)
    control = SelectConfig("matched-random", k=100)
    with pytest.raises(StageError, match="--match"):
        select(tmp_path / "b", control, pool=pool, target=target)
    second = select(tmp_path / "c", control, pool=pool, target=target, match=first)
    facts = [read_json(a.file("selection.json")) for a in (first, second)]
    assert facts[0]["composition"] == facts[1]["composition"]
    assert set(read_selection(first)) != set(read_selection(second))
    with pytest.raises(StageError, match="K is 50"):
        select(tmp_path / "d", SelectConfig("matched-random", k=50), pool=pool, target=target, match=first)


def test_caps_floors_and_draws(tmp_path: Path) -> None:
    pool, target = stores(tmp_path)

    def counts(name: str, **settings: Any) -> dict[str, int]:
        artifact = select(tmp_path / name, SelectConfig(k=100, **settings), pool=pool, target=target)
        found: dict[str, int] = read_json(artifact.file("selection.json"))["composition"]
        return found

    assert counts("cap", cap=0.5) == {"far": 50, "near": 50}
    assert counts("floor", floor=0.4)["far"] == 40
    calibrated = EstimatorConfig(calibration="temperature")
    assert counts("draw", draw="gumbel", temperature=5.0, estimator=calibrated)["far"] > counts("top")["far"]
    with pytest.raises(StageError, match="raise --cap"):
        counts("few", cap=0.3)
    with pytest.raises(ValueError, match="no density ratio"):
        counts("no", draw="gumbel", selector="knn-distance")
    with pytest.raises(ValueError, match="add --calibration"):
        counts("no", draw="gumbel")
    with pytest.raises(ValueError, match="are shares"):
        counts("none", cap=0)


def test_without_near_duplicates(tmp_path: Path) -> None:
    rows, target = gaussians()
    closest = rows["near"][np.argsort(rows["near"][:, 0])[-20:]]
    rows["copies"] = np.repeat(closest, 3, axis=0) * 1.01
    pool, near = store(tmp_path / "pool", rows), store(tmp_path / "target", target)
    plain = select(tmp_path / "plain", SelectConfig(k=60), pool=pool, target=near)
    assert read_json(plain.file("selection.json"))["composition"]["copies"] > 8
    artifact = select(tmp_path / "out", SelectConfig(k=60, distinct=0.999), pool=pool, target=near)
    table = pq.read_table(artifact.file("near_duplicates.parquet")).to_pandas()
    assert len(table) == read_json(artifact.file("selection.json"))["near_duplicates"] > 8
    assert (table["similarity"] > 0.999).all()
    features = read_features(pool)
    place = {key: n for n, key in enumerate(zip(features.sources.tolist(), features.ids.tolist(), strict=True))}
    kept = features.features[[place[key] for key in read_selection(artifact)]]
    unit = kept / np.linalg.norm(kept, axis=1, keepdims=True)
    assert len(kept) == 60 and np.tril(unit @ unit.T, -1).max() <= 0.999
    with pytest.raises(StageError, match=r"without \d+ near-duplicates"):
        select(tmp_path / "few", SelectConfig(k=540, distinct=0.999), pool=pool, target=near)


def test_a_changed_shard_is_refused_by_name(tmp_path: Path) -> None:
    pool, target = stores(tmp_path)
    path = pool.file("shard-000001.parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 - 200] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(StageError, match=r"shard-000001\.parquet .*another checksum"):
        select(tmp_path / "out", SelectConfig(k=10), pool=pool, target=target)


def test_fitting_to_a_draw_of_the_pool(tmp_path: Path) -> None:
    pool, target = stores(tmp_path)
    drawn = draw_rows(open_features(pool), 120, seed=3)
    assert len(drawn) == 120 and drawn.ids.tolist() != sorted(drawn.ids.tolist())
    whole = read_features(pool)
    place = {key: n for n, key in enumerate(zip(whole.sources.tolist(), whole.ids.tolist(), strict=True))}
    rows = [place[key] for key in zip(drawn.sources.tolist(), drawn.ids.tolist(), strict=True)]
    assert rows == sorted(rows) and np.array_equal(drawn.features, whole.features[rows])
    artifact = select(tmp_path / "out", SelectConfig(k=100, fit_rows=120), pool=pool, target=target)
    assert read_json(artifact.file("selection.json"))["composition"]["near"] > 60
