"""Compositions: shares, repeats that are counted, samples that stay where they are."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from embodied_midtrain.artifacts import Skips, StageError
from embodied_midtrain.cli import main
from embodied_midtrain.midtraining.compose import ComposeConfig, compose
from embodied_midtrain.sources.opening import keys_of, open_pool, read_samples
from tests.midtraining.small_pool import make_pool, samples, select


@pytest.fixture
def pools(tmp_path: Path) -> dict[str, Path]:
    """Four books and eight charts, each a pool."""
    rows = samples()
    return {
        "near": make_pool(tmp_path / "near", [r for r in rows if r.source == "books"]),
        "far": make_pool(tmp_path / "far", [r for r in rows if r.source == "charts"]),
    }


def test_even_by_pool_with_counted_repeats(tmp_path: Path, pools: dict[str, Path]) -> None:
    made = compose(tmp_path / "c", ComposeConfig(budget=20), pools=pools)
    assert made.counts["shares"] == {
        "far": {"samples": 8, "drawn": 10, "repeated": 2},
        "near": {"samples": 4, "drawn": 10, "repeated": 6},
    }
    pool = open_pool(made.path, skips=Skips())
    keys = keys_of(pool)
    assert [s.key for s in pool] == keys and len(keys) == 20
    # No sample a third time before each has come twice; every quarter has both halves.
    assert sorted(Counter(k for k in keys if k[0] == "books").values()) == [2, 2, 3, 3]
    assert all(Counter(s for s, _ in keys[at : at + 4]) == {"books": 2, "charts": 2} for at in range(0, 20, 4))
    wanted = {s.key: s for s in samples()}
    assert [s.turns for s in read_samples(made.path, keys[:5])] == [wanted[k].turns for k in keys[:5]]


def test_weights_by_source_and_a_composition_of_compositions(tmp_path: Path, pools: dict[str, Path]) -> None:
    by_source = ComposeConfig(budget=8, by="source", weights={"books": 3, "charts": 1})
    inner = compose(tmp_path / "inner", by_source, pools={"all": make_pool(tmp_path / "all", samples())})
    assert {n: row["drawn"] for n, row in inner.counts["shares"].items()} == {"books": 6, "charts": 2}
    others = make_pool(tmp_path / "others", [replace(s, source="more") for s in samples()])
    pair = {"inner": inner.path, "others": others}
    outer = compose(tmp_path / "outer", ComposeConfig(budget=16, weights={"inner": 3, "others": 1}), pools=pair)
    assert outer.counts["shares"]["inner"] == {"samples": 6, "drawn": 12, "repeated": 6}
    assert Counter(s.source for s in open_pool(outer.path, skips=Skips())) == {"books": 9, "charts": 3, "more": 4}


def test_what_a_selection_chose_is_drawn(tmp_path: Path, pools: dict[str, Path]) -> None:
    rows = samples()
    books = [r for r in rows if r.source == "books"]
    chosen = select(tmp_path / "selected", books[:3])
    made = compose(tmp_path / "c", ComposeConfig(budget=6), pools={"near": pools["near"]}, selection=chosen)
    assert made.counts["shares"] == {"near": {"samples": 3, "drawn": 6, "repeated": 3}}
    assert set(keys_of(open_pool(made.path, skips=Skips()))) == {r.key for r in books[:3]}
    words = f"compose --out {made.path} --pools {pools['near']} --budget 6 --selection {chosen.path}"
    assert main(words.split()) == 0, "the same, by the command"
    with pytest.raises(StageError, match=r"3 of 3 samples .* are not in this pool"):
        compose(tmp_path / "other", ComposeConfig(budget=6), pools={"far": pools["far"]}, selection=chosen)
    with pytest.raises(ValueError, match="of one pool, and 2 are given"):
        compose(tmp_path / "both", ComposeConfig(budget=6), pools=pools, selection=chosen)


def test_it_moves_with_its_pools_and_notices_others(tmp_path: Path, pools: dict[str, Path]) -> None:
    run = tmp_path / "run"
    for name, path in pools.items():
        shutil.copytree(path, run / name)
    compose(run / "c", ComposeConfig(budget=4), pools={n: run / n for n in pools})
    shutil.move(run, tmp_path / "moved")
    assert len(list(open_pool(tmp_path / "moved" / "c", skips=Skips()))) == 4
    shutil.rmtree(tmp_path / "moved" / "near")
    make_pool(tmp_path / "moved" / "near", samples()[:2])
    with pytest.raises(StageError, match="near has changed since"):
        open_pool(tmp_path / "moved" / "c", skips=Skips())


def test_records_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    (tmp_path / "captions.jsonl").write_text('{"caption": "a red mug", "id": "1"}\n{broken\n')
    made = compose(tmp_path / "c", ComposeConfig(budget=3), pools={"captions": tmp_path / "captions.jsonl"})
    assert made.counts["shares"]["captions"] == {"samples": 1, "drawn": 3, "repeated": 2}
    assert made.counts["skipped"] == {"broken JSON": 1}


def test_what_cannot_be_meant(tmp_path: Path, pools: dict[str, Path]) -> None:
    with pytest.raises(StageError, match="is in the pool near and in again"):
        compose(tmp_path / "a", ComposeConfig(budget=4), pools={**pools, "again": pools["near"]})
    with pytest.raises(ValueError, match="did you mean 'near'"):
        compose(tmp_path / "b", ComposeConfig(budget=4, weights={"naer": 1}), pools=pools)
    with pytest.raises(StageError, match="nothing can be drawn of empty"):
        compose(tmp_path / "d", ComposeConfig(budget=4), pools={**pools, "empty": make_pool(tmp_path / "e", [])})
    with pytest.raises(ValueError, match="at least 1"):
        compose(tmp_path / "f", ComposeConfig(budget=0), pools=pools)
