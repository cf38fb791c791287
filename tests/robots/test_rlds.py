"""RLDS: real Bridge episodes where they are at hand, records made here by the wire format, damaged ones."""

import contextlib
import io
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embodied_midtrain.artifacts import Skips, StageError
from embodied_midtrain.episodes import BadEpisode
from embodied_midtrain.robots.opening import open_robots
from embodied_midtrain.robots.rlds import RldsRobots
from embodied_midtrain.robots.tfrecord import parse_example, read_records

crc = pytest.importorskip("google_crc32c")

BRIDGE = Path(os.environ.get("EMT_BRIDGE", "nowhere"))
"""Folder of the 25 real episodes of Octo's debug data set (bridge_dataset/1.0.0), which are not part of the project."""


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values: Any) -> bytes:
    if isinstance(values, list):
        return message(1, b"".join(message(1, v) for v in values))
    if values.dtype == np.float32:
        return message(2, message(1, values.astype("<f4").tobytes()))
    return message(3, message(1, b"".join(varint(int(v) & (1 << 64) - 1) for v in values)))


def example(features: dict[str, Any]) -> bytes:
    entries = [message(1, message(1, name.encode()) + message(2, feature(v))) for name, v in features.items()]
    return message(1, b"".join(entries))


def masked(data: bytes) -> bytes:
    value = crc.value(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def episode(number: int, length: int = 3) -> dict[str, Any]:
    return {
        "steps/observation/image": [picture(10 * number + t) for t in range(length)],
        "steps/action/world_vector": np.arange(3 * length, dtype=np.float32) + number,
        "steps/action/open": np.full(length, number, np.float32),
        "steps/is_last": np.array([0] * (length - 1) + [1]),
        "steps/language_instruction": [f"push {number}".encode()] * length,
    }


def tensor(*shape: int) -> dict[str, Any]:
    return {"tensor": {"shape": {"dimensions": [str(n) for n in shape]}, "dtype": "float32"}}


def node(**features: Any) -> dict[str, Any]:
    return {"featuresDict": {"features": features}}


def written(root: Path, records: list[bytes], name: str = "robots") -> Path:
    root.mkdir(parents=True)
    steps = node(
        observation=node(image={"image": {"encodingFormat": "png"}}, state=tensor(4)),
        action=node(world_vector=tensor(3), open=tensor()),
        language_instruction={"text": {}},
    )
    (root / "features.json").write_text(json.dumps(node(steps={"sequence": {"feature": steps}})))
    info = {"name": name, "splits": [{"name": "train", "shardLengths": [str(len(records))]}]}
    (root / "dataset_info.json").write_text(json.dumps(info))
    (root / f"{name}-train.tfrecord-00000-of-00001").write_bytes(b"".join(records))
    return root


def test_records_by_the_wire_format(tmp_path: Path) -> None:
    robots = open_robots(written(tmp_path / "r", [record(example(episode(n, 3 + n))) for n in range(2)]), Skips())
    assert isinstance(robots, RldsRobots)
    assert robots.spec.names == ("world_vector0", "world_vector1", "world_vector2", "open0")
    first, second = robots
    assert (first.instruction, second.instruction) == ("push 0", "push 1")
    assert first.frames.shape == (3, 6, 8, 3) and second.frames[3][0, 0, 0] == 13
    np.testing.assert_array_equal(second.actions[1], [4, 5, 6, 1])


def test_numbers_of_every_kind_come_back() -> None:
    values = {"f": np.array([1.5, -2.0], np.float32), "i": np.array([-1, 0, 2**40]), "b": [b"", b"\xff"]}
    found = parse_example(example(values))
    np.testing.assert_array_equal(found["f"], values["f"])
    np.testing.assert_array_equal(found["i"], values["i"])
    assert found["b"] == values["b"]


@pytest.mark.parametrize(
    ("damage", "reasons", "kept"),
    [
        (lambda d: d[:-9], {"truncated record": 1}, 2),
        (lambda d: d[:5], {"truncated record": 1}, 0),
        (lambda d: d[: len(d) // 2] + b"\x00\x01\x02" + d[len(d) // 2 + 3 :], {"wrong checksum": 1}, 1),
        (lambda d: b"\xff" * 12 + d, {"wrong checksum": 1}, 0),
    ],
)
def test_a_damaged_shard_costs_what_comes_after(tmp_path: Path, damage: Any, reasons: Any, kept: int) -> None:
    root = written(tmp_path / "r", [record(example(episode(n))) for n in range(3)])
    shard = next(root.glob("*.tfrecord*"))
    shard.write_bytes(damage(shard.read_bytes()))
    skips = Skips()
    robots = open_robots(root, skips)
    if kept:
        assert len(list(robots)) == kept == len(list(robots))
    else:
        with pytest.raises(StageError, match="no frames"):
            list(robots)
    assert skips.counts() == reasons


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"steps/observation/image": []}, "missing key"),
        ({"steps/observation/image": [b"no picture"] * 3}, "broken frame"),
        ({"steps/action/world_vector": np.zeros(8, np.float32)}, "uneven"),
        ({"steps/action/world_vector": [b"x"]}, "missing key"),
        ({"steps/action/open": np.full(3, np.nan, np.float32)}, "nan action"),
        ({"steps/language_instruction": [b" "] * 3}, "no instruction"),
    ],
)
def test_a_bad_episode_costs_only_itself(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    records = [record(example(episode(n) | (change if n == 1 else {}))) for n in range(3)]
    skips = Skips()
    assert [e.instruction for e in open_robots(written(tmp_path / "r", records), skips)] == ["push 0", "push 2"]
    assert skips.counts() == {reason: 1}


def test_missing_shards_and_splits_are_named(tmp_path: Path) -> None:
    root = written(tmp_path / "r", [record(example(episode(0)))])
    with pytest.raises(StageError, match="no shard of the split 'val'; there are: train"):
        open_robots(root, Skips(), split="val")
    info = json.loads((root / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = ["1", "1"]
    (root / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(StageError, match="1 of 2 shards"):
        open_robots(root, Skips())


def test_a_width_that_no_robot_has_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    root = written(tmp_path / "r", [record(example(episode(0)))])
    features = (root / "features.json").read_text()
    assert '"3"' in features
    (root / "features.json").write_text(features.replace('"3"', '"99999999999"'))
    with pytest.raises(StageError, match="can be meant"):
        open_robots(root, Skips())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 400), st.integers(0, 255))
def test_any_bytes_are_an_example_or_a_bad_episode(data: bytes, at: int, byte: int) -> None:
    good = bytearray(example(episode(1)))
    good[at % len(good)] = byte
    for given_bytes in (data, bytes(good)):
        with contextlib.suppress(BadEpisode):
            parse_example(given_bytes)
        with contextlib.suppress(BadEpisode):
            list(read_records(io.BytesIO(given_bytes)))


@pytest.mark.skipif(not BRIDGE.is_dir(), reason="the real episodes are not at hand")
def test_real_bridge_episodes() -> None:
    skips = Skips()
    robots = open_robots(BRIDGE, skips)
    episodes = list(robots)
    assert len(episodes) == 25 and not skips.rows
    assert robots.spec.names[-1] == "gripper" and robots.spec.rotation == "euler xyz"
    for one in episodes:
        assert one.frames.shape == (10, 64, 64, 3) and one.actions.shape == (10, 7)
        assert one.instruction and 20 < one.frames[0].mean() < 235
        gripper = one.actions[:, 6]
        assert gripper.min() >= 0.0 and gripper.max() <= 1.0 and np.abs(one.actions[:, :6]).max() < 1.0
    assert len({e.instruction for e in episodes}) == 4
    other = open_robots(BRIDGE, Skips(), camera="image_1")
    assert other.fingerprint() != robots.fingerprint()
    assert not np.array_equal(next(iter(other)).frames[0], episodes[0].frames[0])


@pytest.mark.skipif(not BRIDGE.is_dir(), reason="the real episodes are not at hand")
def test_real_bridge_episodes_as_tensorflow_datasets_reads_them() -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    tensorflow = pytest.importorskip("tensorflow")
    encoded = {"steps": {"observation": {"image_0": tfds.decode.SkipDecoding()}}}
    theirs = tfds.builder_from_directory(str(BRIDGE)).as_dataset(split="train", decoders=encoded)
    seen = 0
    for mine, other in zip(open_robots(BRIDGE, Skips()), theirs, strict=True):
        steps = list(other["steps"].as_numpy_iterator())
        np.testing.assert_array_equal(mine.actions, [s["action"] for s in steps])
        assert mine.instruction == steps[0]["language_instruction"].decode().strip()
        # TensorFlow decodes JPEG by a quick, coarser transform unless it is told not to: up to 17 shades apart.
        wanted = [
            tensorflow.io.decode_jpeg(s["observation"]["image_0"], channels=3, dct_method="INTEGER_ACCURATE")
            for s in steps
        ]
        np.testing.assert_array_equal(mine.frames[:], np.stack(wanted))
        seen += len(steps)
    assert seen == 250
