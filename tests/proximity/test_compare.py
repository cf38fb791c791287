import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from embodied_midtrain.artifacts import StageError, read_json
from embodied_midtrain.proximity.aligning import in_order
from embodied_midtrain.proximity.compare import compare
from embodied_midtrain.proximity.ranking import spearman
from embodied_midtrain.proximity.select import select
from embodied_midtrain.proximity.selectors import SelectConfig
from tests.proximity.test_select import DIM, gaussians, store


def test_all_scores_in_one_table(tmp_path):
    rows, target = gaussians()
    # A sample that no selector by features can score, but random does.
    rows["far"][7, 3] = np.nan
    pool, near = store(tmp_path / "pool", rows), store(tmp_path / "target", target)
    chosen = {
        name: select(tmp_path / name, SelectConfig(selector=name, k=k), pool=pool, target=near)
        for name, k in (("estimator", 100), ("mean-distance", 60), ("random", 100))
    }
    artifact = compare(tmp_path / "out", pool=pool, selections=chosen)
    table = pq.read_table(artifact.file("selectors.parquet")).to_pandas()
    assert len(table) == 500 and list(table["source"][:2]) == ["far", "far"]
    assert table["estimator.rank"].isna().sum() == 1 and table["random.rank"].notna().all()
    facts = read_json(artifact.file("agreement.json"))
    both = table.dropna()
    place = {name: n for n, name in enumerate(facts["names"])}
    for a, b in (("estimator", "mean-distance"), ("estimator", "random")):
        wanted = spearman(both[f"{a}.rank"].to_numpy(float), both[f"{b}.rank"].to_numpy(float))
        assert facts["spearman"][place[a]][place[b]] == pytest.approx(wanted, abs=2e-3)
        common = (both[f"{a}.kept"] & both[f"{b}.kept"]).sum()
        sizes = [table[f"{name}.kept"].sum() for name in (a, b)]
        assert facts["overlap"][place[a]][place[b]] == pytest.approx(common / min(sizes), abs=0.02)
    assert facts["spearman"][0][0] == pytest.approx(1.0)
    assert facts["by_chance"][0][1] == pytest.approx(0.2)
    first = pq.read_table(chosen["estimator"].file("scores.parquet")).to_pandas()
    merged = table.dropna().merge(first, on=["source", "id"])
    assert (merged["estimator.score"] == merged["score"]).all() and len(merged) == 499
    assert json.loads(artifact.file("agreement.json").read_text())["names"] == ["estimator", "mean-distance", "random"]


def test_the_two_controls_are_two_draws(tmp_path):
    rows, target = gaussians()
    pool, near = store(tmp_path / "pool", rows), store(tmp_path / "target", target)
    first = select(tmp_path / "first", SelectConfig(selector="random", k=100), pool=pool, target=near)
    config = SelectConfig(selector="matched-random", k=100)
    second = select(tmp_path / "second", config, pool=pool, target=near, match=first)
    artifact = compare(tmp_path / "out", pool=pool, selections={"random": first, "matched": second})
    facts = read_json(artifact.file("agreement.json"))
    assert abs(facts["spearman"][0][1]) < 0.2 and facts["overlap"][0][1] < 0.4
    same = [read_json(one.file("selection.json"))["composition"] for one in (first, second)]
    assert same[0] == same[1]


def test_refusals(tmp_path):
    rows, target = gaussians()
    pool, near = store(tmp_path / "pool", rows), store(tmp_path / "target", target)
    other = store(tmp_path / "other", {"far": np.zeros((20, DIM)) + np.arange(20)[:, None]})
    chosen = {n: select(tmp_path / n, SelectConfig(selector="random", k=9), pool=pool, target=near) for n in "ab"}
    with pytest.raises(StageError, match="at least two"):
        compare(tmp_path / "out", pool=pool, selections={"a": chosen["a"]})
    with pytest.raises(StageError, match="was not made from"):
        compare(tmp_path / "out", pool=other, selections=chosen)


def test_values_in_the_order_of_names():
    ids = [f"{n}" for n in range(50)]
    kept = [n for n in range(50) if n % 7]
    parts = [(["s"] * 5, [ids[n] for n in part], np.array(part, float)[:, None]) for part in np.array_split(kept, 8)]
    parts = [(["s"] * len(names), names, values) for _, names, values in parts]
    asked = [n for n in range(50) if n % 3]
    blocks = [(["s"] * len(block), [ids[n] for n in block]) for block in np.array_split(asked, 4)]
    found = np.concatenate(list(in_order(iter(parts), blocks)))[:, 0]
    assert np.array_equal(found, [n if n % 7 else np.nan for n in asked], equal_nan=True)
    # With little room ahead a missing sample must not eat what comes after it.
    found = np.concatenate(list(in_order(iter(parts), blocks, ahead=8)))[:, 0]
    assert np.array_equal(found, [n if n % 7 else np.nan for n in asked], equal_nan=True)
