"""Draws from a store against the store read whole."""

from pathlib import Path

import numpy as np
import pytest

from embodied_midtrain.features import drawing
from embodied_midtrain.features.drawing import draw_of, draw_rows, source_codes, take_rows
from embodied_midtrain.features.splits import episodes_of, folds, held_out_episodes, one_of_each
from embodied_midtrain.features.store import open_features, read_features
from tests.proximity.test_select import store


def test_rows_of_some_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "BLOCK", 9)
    rng = np.random.default_rng(0)
    made = store(tmp_path / "s", {"b": rng.normal(0, 1, (30, 4)), "a": rng.normal(0, 1, (20, 4))})
    opened, whole = open_features(made), read_features(made)
    names, codes = source_codes(opened)
    assert names == ["a", "b"] and [names[c] for c in codes] == whole.sources.tolist()
    assert draw_of(codes, [0], 100, 1).tolist() == np.flatnonzero(whole.sources == "a").tolist()
    drawn = draw_of(codes, [1], 12, 1)
    assert len(set(drawn.tolist())) == 12 and set(whole.sources[drawn]) == {"b"} and (np.diff(drawn) > 0).all()
    counts = np.bincount(np.concatenate([draw_of(codes, [0, 1], 10, n) for n in range(400)]), minlength=50)
    assert counts.min() > 40 and counts.max() < 130
    table = take_rows(opened, drawn)
    assert table.ids.tolist() == whole.ids[drawn].tolist() and (table.features == whole.features[drawn]).all()
    assert len(draw_rows(opened, 7, 0)) == 7 and len(draw_rows(opened, 700, 0)) == 50
    assert len(draw_of(codes, [], 5, 0)) == 0


def test_episodes_stay_whole(tmp_path: Path) -> None:
    table = read_features(store(tmp_path / "t", {"x": np.ones((40, 2)), "y": np.ones((33, 2))}))
    episodes, rng = episodes_of(table), np.random.default_rng(0)
    dealt = folds(episodes, 4, rng)
    assert all(len(set(dealt[episodes == name])) == 1 for name in episodes)
    assert sorted(np.unique([dealt[episodes == n][0] for n in np.unique(episodes)], return_counts=True)[1]) == [
        3,
        4,
        4,
        4,
    ]
    held = held_out_episodes(table, 0.2, rng)
    assert len(set(episodes[held])) == 3 and not set(episodes[held]) & set(episodes[~held])
    single = one_of_each(episodes, rng)
    assert sorted(episodes[single]) == sorted(set(episodes.tolist()))
    assert sorted(set(folds(np.array(["one"] * 8), 4, rng).tolist())) == [0, 1, 2, 3]
