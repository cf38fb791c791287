"""Exact neighbours against numpy, and ids that are not there."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from embodied_midtrain.artifacts import StageError, read_json
from embodied_midtrain.cli import main
from embodied_midtrain.features import store as stores
from embodied_midtrain.features.store import open_features, read_features
from embodied_midtrain.gap.neighbours import find_rows, nearest, write_neighbours
from tests.proximity.test_select import store


@pytest.fixture
def sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stores, "GROUP", 7)
    rng = np.random.default_rng(0)
    pool = {"one": rng.normal(3, 1, (40, 6)), "two": rng.normal(3, 1, (33, 6))}
    pool["two"][4] = np.inf
    store(tmp_path / "pool", pool)
    store(tmp_path / "target", {"task": rng.normal(3, 1, (25, 6))})
    return tmp_path


def opened(folder: Path, name: str):
    from embodied_midtrain.artifacts import Artifact

    return Artifact.open(folder / name, "embed")


def test_the_k_nearest_are_those_of_numpy(sides: Path) -> None:
    pool, target = opened(sides, "pool"), opened(sides, "target")
    asked = find_rows(open_features(target), ["task/0/0003", "task/4/0022"])
    found = nearest(asked, open_features(pool), 5)
    rows = read_features(pool)
    for one, query in zip(found, asked.features, strict=True):
        distances = np.linalg.norm(rows.features - query, axis=1)
        order = np.argsort(distances)[:5]
        assert one.keys == [(rows.sources[i], rows.ids[i]) for i in order]
        assert one.distances == pytest.approx(distances[order], rel=1e-5)
    # More than there are: all that are finite.
    assert len(nearest(asked, open_features(pool), 500)[0].keys) == 72
    with pytest.raises(ValueError, match="k is 0"):
        nearest(asked, open_features(pool), 0)


def test_rows_are_found_in_the_order_asked_for(sides: Path) -> None:
    pool = open_features(opened(sides, "pool"))
    rows = find_rows(pool, ["two/1/0005", "one/0/0000"])
    assert rows.sources.tolist() == ["two", "one"] and rows.ids.tolist() == ["1/0005", "0/0000"]
    every = read_features(opened(sides, "pool"))
    assert rows.features[0].tolist() == every.features[(every.sources == "two") & (every.ids == "1/0005")][0].tolist()
    assert find_rows(pool, ["7/0036"]).sources.tolist() == ["one"]


def test_ids_that_are_not_there(sides: Path) -> None:
    pool = open_features(opened(sides, "pool"))
    with pytest.raises(StageError, match=r"'two/1/0500' is not in .*such as one of these: two/1/000"):
        find_rows(pool, ["two/1/0500"])
    with pytest.raises(StageError, match=r"2 times; give it as SOURCE/ID"):
        find_rows(pool, ["0/0000"])


def test_the_command(sides: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["neighbours", "--pool", str(sides / "pool"), "--target", str(sides / "target"), "--k", "3"]
    assert main([*call, "--of", "one/0/0001", "--out", str(sides / "near.parquet")]) == 0
    assert capsys.readouterr().out.count("task/") == 3
    rows = pq.read_table(sides / "near.parquet").to_pydict()
    assert rows["rank"] == [0, 1, 2] and rows["near_source"] == ["task"] * 3
    assert rows["distance"] == sorted(rows["distance"])
    assert main([*call, "--side", "frame", "--of", "task/0/0001", "--out", str(sides / "near.json")]) == 0
    assert read_json(sides / "near.json")[0]["query"] == ["task", "0/0001"]
    assert main([*call, "--of", "nobody"]) == 1
    assert "is not in" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"\.parquet or \.json"):
        write_neighbours(sides / "near.txt", [])
