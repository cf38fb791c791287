import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from embodied_midtrain.artifacts import Artifact, Skips, StageError
from embodied_midtrain.explore.explore import ExploreConfig, explore
from embodied_midtrain.explore.points import draw, mapped
from embodied_midtrain.explore.site import TABLE
from embodied_midtrain.gap.measure import GapConfig, measure_gap
from embodied_midtrain.proximity.select import read_selection
from embodied_midtrain.sources.opening import open_pool


def test_a_draw_keeps_the_marked() -> None:
    mine = np.zeros(100, np.bool_)
    mine[[3, 50, 99]] = True
    rows = draw(mine, 10, seed=1)
    assert len(rows) == 10 and {3, 50, 99} <= set(rows.tolist()) and rows.tolist() == sorted(set(rows.tolist()))
    assert draw(mine, 10, seed=1).tolist() == rows.tolist() != draw(mine, 10, seed=2).tolist()
    assert set(draw(mine, 2, seed=0).tolist()) <= {3, 50, 99}
    assert draw(mine, 1000, seed=0).tolist() == list(range(100))


def test_every_point_has_its_own_facts(inputs: dict[str, Path], prepared: Artifact) -> None:
    rows = pq.read_table(prepared.file(TABLE)).to_pylist()
    assert prepared.counts == {"pool": 42, "target": 18, "selected": 20, "selected_shown": 20, "skipped": {}}
    assert [row["row"] for row in rows] == list(range(60))
    scores = pq.read_table(inputs["selection"] / "scores.parquet").to_pylist()
    scored = {(row["source"], row["id"]): row for row in scores}
    selected = set(read_selection(Artifact.open(inputs["selection"])))
    pool = {one.key: one for one in open_pool(inputs["pool"], skips=Skips())}
    for row in rows[:42]:
        key = (row["source"], row["id"])
        assert row["kept"] == ("selected" if key in selected else "not selected")
        assert row["score"] == pytest.approx(scored[key]["score"]) and row["rank"] == scored[key]["rank"]
        assert row["text"].startswith(pool[key].turns[0].text[:5])
        assert (row["picture"] is None) == (not pool[key].pictures)
    for row in rows[42:]:
        assert (
            row["kept"] == "robot"
            and row["score"] is None
            and row["text"] in ("go left", "go right", "move left", "move right")
        )
        with Image.open(io.BytesIO(row["picture"]["bytes"])) as image:
            assert image.format == "JPEG" and max(image.size) <= 160
    assert np.isfinite([(row["x"], row["y"]) for row in rows]).all()


def test_places_of_the_gaps_own_map(inputs: dict[str, Path], tmp_path: Path) -> None:
    pool, target = (Artifact.open(inputs[name]) for name in ("pool-features", "target-features"))
    gap = measure_gap(tmp_path / "gap", GapConfig(map_points=60), pool=pool, target=target)
    table = pq.read_table(gap.file("map.parquet")).to_pylist()
    points = mapped(gap, 1000, set(), 0)
    wanted = [(row["source"], row["id"], row["x"], row["y"]) for row in table]
    assert [(*k, *xy) for k, xy in zip([*points.pool, *points.target], points.places.tolist(), strict=True)] == wanted
    few = mapped(gap, 30, set(read_selection(Artifact.open(inputs["selection"]))), 0)
    assert len(few.pool) + len(few.target) == 30 == len(few.places)


def test_what_is_asked_wrongly(inputs: dict[str, Path], tmp_path: Path) -> None:
    given = {
        "pool_path": inputs["pool"],
        "pool": open_pool(inputs["pool"], skips=Skips()),
        "selection": Artifact.open(inputs["selection"]),
    }
    with pytest.raises(StageError, match="either --gap"):
        explore(tmp_path / "1", ExploreConfig(), **given)
    other = tmp_path / "other.json"
    other.write_text('[{"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "."}]}]')
    given |= {"pool_path": other, "pool": open_pool(other, skips=Skips())}
    with pytest.raises(StageError, match="is not in the pool"):
        explore(tmp_path / "2", ExploreConfig(), features=Artifact.open(inputs["pool-features"]), **given)
