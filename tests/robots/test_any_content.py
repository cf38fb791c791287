"""Whatever a data set's descriptions and arrays hold, each reader gives episodes, listed skips, or a refusal."""

import copy
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embodied_midtrain.artifacts import Skips, StageError
from embodied_midtrain.episodes import BadEpisode
from embodied_midtrain.robots.opening import open_robots
from tests.robots.test_calvin import split
from tests.robots.test_hdf5 import episode, write
from tests.robots.test_lerobot import v21

FIXTURES = Path(__file__).parent / "fixtures"
value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats()
    | st.text(max_size=12)
    | st.just("../../{chunk_index}"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)


def read(path: Path) -> tuple[int, Skips]:
    skips, count = Skips(), 0
    try:
        for one in open_robots(path, skips):
            count += 1
            assert one.actions.ndim == 2 and len(one.frames) == len(one.actions) and np.isfinite(one.actions).all()
            try:
                assert one.frames[:].dtype == np.uint8
            except BadEpisode as error:
                skips.add(error.reason, one.id)
    except StageError as error:
        assert str(error)
    assert all(row["reason"] and row["where"] for row in skips.rows)
    return count, skips


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every value of nested containers, by the way to it."""
    found = [path]
    for key, inner in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        found += places(inner, (*path, key))
    return found


def changed(node: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    node = copy.copy(node)
    node[path[0]] = changed(node[path[0]], path[1:], new)
    return node


@pytest.mark.parametrize("file", ["lerobot/meta/info.json", "rlds/dataset_info.json", "rlds/features.json"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_description(file: str, data: st.DataObject) -> None:
    content = json.loads((FIXTURES / file).read_text())
    where = data.draw(st.sampled_from(places(content)))
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "set"
        shutil.copytree(FIXTURES / file.split("/")[0], root)
        target = root / file.partition("/")[2]
        target.write_text(json.dumps(changed(content, where, data.draw(value))))
        read(root)


array = hnp.arrays(
    dtype=st.sampled_from([np.uint8, np.int64, np.float32, np.float64, np.bool_, np.complex64, "S3"]),
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(["actions", "obs/agentview_rgb"]), content=array)
def test_any_array_in_hdf5(name: str, content: Any) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = write(Path(place) / "a.hdf5", [episode(0, length=3), episode(1, length=3)])
        with h5py.File(path, "r+") as file:
            del file[f"data/demo_0/{name}"]
            file[f"data/demo_0/{name}"] = content
        count, skips = read(path)
        assert count + len(skips) == 2


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(["rel_actions", "rgb_static"]), content=array)
def test_any_array_in_calvin(name: str, content: Any) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = split(Path(place) / "training", [(2, 4), (10, 11)])
        step = {"rgb_static": np.zeros((8, 10, 3), np.uint8), "rel_actions": np.zeros(7), name: content}
        np.savez(root / "episode_0000003.npz", **step)
        read(root)


column = st.lists(
    st.lists(st.floats(width=32) | st.none(), max_size=3) | st.none() | st.floats(width=32), min_size=4, max_size=4
)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(["action", "timestamp", "task_index"]), values=column)
def test_any_column_in_lerobot(name: str, values: list[Any]) -> None:
    try:
        made = pa.array(values)
    except (pa.ArrowException, TypeError):
        return
    with tempfile.TemporaryDirectory() as place:
        root = v21(Path(place) / "old", video=False)
        path = sorted((root / "data").rglob("*.parquet"))[1]
        table = pq.read_table(path)
        pq.write_table(table.set_column(table.column_names.index(name), name, made), path)
        count, skips = read(root)
        assert count >= 2 and count + len(skips) >= 3
