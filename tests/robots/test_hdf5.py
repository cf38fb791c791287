"""Files of robomimic's layout: ours, LIBERO's conventions, and every way in which they can be broken."""

import json

import h5py
import numpy as np
import pytest

from embodied_midtrain.artifacts import Skips, StageError
from embodied_midtrain.episodes import ActionSpec, Episode
from embodied_midtrain.robots.hdf5 import ROBOSUITE_POSE, close_header, write_demo, write_header
from embodied_midtrain.robots.opening import open_robots

SPEC = ActionSpec(("x", "y", "gripper"), "delta", "world", "none", 2, 1, (-1.0,) * 3, (1.0,) * 3, 10.0)


def episode(seed, length=6, **more):
    random = np.random.default_rng(seed)
    frames = random.integers(0, 256, (length, 8, 10, 3), dtype=np.uint8)
    actions = random.uniform(-1, 1, (length, 3)).astype(np.float32)
    return Episode(**{"id": "", "task": "t", "instruction": f"do {seed}", "frames": frames, "actions": actions, **more})


def write(path, episodes, spec=SPEC):
    with h5py.File(path, "w") as file:
        data = write_header(file, task=path.stem, instruction="do it", spec=spec, environment={"type": 2})
        for number, one in enumerate(episodes):
            write_demo(data, number, one)
        close_header(file, {"train": range(len(episodes))})
    return path


def change(path, where, make=None):
    """Remove `where` from the file; or put what `make` says in its place."""
    with h5py.File(path, "r+") as file:
        old = file[where][()] if make else None
        del file[where]
        if make:
            file[where] = make(old)


def read(path):
    skips = Skips()
    return list(open_robots(path, skips)), skips


def test_what_is_written_is_read_back(tmp_path):
    given = [episode(n, length=4 + n) for n in range(12)]
    found, skips = read(write(tmp_path / "wipe.hdf5", given))
    assert not len(skips)
    assert [e.id for e in found] == [f"wipe/demo_{n}" for n in range(12)], "in order of their numbers, not their names"
    for a, b in zip(given, found, strict=True):
        assert (a.frames == b.frames).all() and (a.actions == b.actions).all()
        assert (b.task, b.instruction, b.success) == ("wipe", a.instruction, True)


def test_a_folder_is_read_in_order_and_again(tmp_path):
    for name in ("b", "a"):
        write(tmp_path / f"{name}.hdf5", [episode(1)])
    robots = open_robots(tmp_path, Skips())
    assert [e.task for e in robots] == ["a", "b"] == [e.task for e in robots]
    assert robots.spec == SPEC


def test_the_fingerprint_follows_the_bytes(tmp_path):
    path = write(tmp_path / "a.hdf5", [episode(1)])
    first = open_robots(path, Skips()).fingerprint()
    assert open_robots(tmp_path, Skips()).fingerprint() == first
    write(path, [episode(2)])
    assert open_robots(path, Skips()).fingerprint() != first


def libero(path, *, upside_down=True):
    one = episode(3, actions=np.zeros((6, 7), np.float32))
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"type": 1, "env_name": "Libero_Tabletop_Manipulation"})
        data.attrs["problem_info"] = json.dumps({"language_instruction": ["open", "the", "drawer"]})
        data.attrs["macros_image_convention"] = "opengl" if upside_down else "opencv"
        demo = data.create_group("demo_0")
        demo["obs/agentview_rgb"] = one.frames[:, ::-1] if upside_down else one.frames
        demo["obs/eye_in_hand_rgb"] = one.frames // 2
        demo["obs/ee_pos"] = np.zeros((6, 3))
        demo["actions"] = one.actions.astype(np.float64)
    return one.frames


def test_liberos_pictures_are_turned_the_right_way_up(tmp_path):
    frames = libero(tmp_path / "KITCHEN_open_the_drawer_demo.hdf5")
    (found,), skips = read(tmp_path)
    assert (found.frames == frames).all() and not len(skips)
    assert (found.task, found.instruction) == ("KITCHEN_open_the_drawer", "open the drawer")
    assert open_robots(tmp_path, Skips()).spec == ROBOSUITE_POSE
    frames = libero(tmp_path / "KITCHEN_open_the_drawer_demo.hdf5", upside_down=False)
    assert (read(tmp_path)[0][0].frames == frames).all()


def test_a_camera_can_be_chosen(tmp_path):
    frames = libero(tmp_path / "a.hdf5", upside_down=False)
    (hand,) = open_robots(tmp_path, Skips(), camera="eye_in_hand_rgb")
    assert (hand.frames == frames // 2).all()
    skips = Skips()
    with pytest.raises(StageError, match="no frames"):
        list(open_robots(tmp_path, skips, camera="wrist"))
    assert "no camera 'wrist', there are: agentview_rgb" in skips.rows[0]["detail"]


BROKEN = {
    "nan action": lambda p: change(p, "data/demo_1/actions", lambda a: np.full_like(a, np.nan)),
    "uneven": lambda p: change(p, "data/demo_1/actions", lambda a: a[:-2]),
    "bad actions": lambda p: change(p, "data/demo_1/actions", lambda a: a[:, :2]),
    "bad frames": lambda p: change(p, "data/demo_1/obs/agentview_rgb", lambda a: a.astype(np.float32)),
    "missing key": lambda p: change(p, "data/demo_1/obs"),
    "empty": lambda p: (
        change(p, "data/demo_1/actions", lambda a: a[:0]),
        change(p, "data/demo_1/obs/agentview_rgb", lambda a: a[:0]),
    ),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_bad_episode_is_counted_and_listed_and_the_rest_goes_on(tmp_path, reason):
    path = write(tmp_path / "a.hdf5", [episode(n) for n in range(3)])
    BROKEN[reason](path)
    skips = Skips()
    robots = open_robots(path, skips)
    for _ in range(2):
        assert [e.id for e in robots] == ["a/demo_0", "a/demo_2"]
    assert skips.counts() == {reason: 1}, "once, however often it is read"
    assert skips.rows[0]["where"] == "a/demo_1"


def test_a_missing_key_is_named(tmp_path):
    path = write(tmp_path / "a.hdf5", [episode(n) for n in range(2)])
    change(path, "data/demo_0/actions")
    _, skips = read(path)
    assert skips.counts() == {"missing key": 1} and "actions" in skips.rows[0]["detail"]


def test_an_episode_without_words_is_skipped(tmp_path):
    path = write(tmp_path / "a.hdf5", [episode(0), episode(1)])
    with h5py.File(path, "r+") as file:
        del file["data/demo_0"].attrs["instruction"]
        file["data"].attrs["problem_info"] = "{}"
    found, skips = read(path)
    assert len(found) == 1 and skips.counts() == {"no instruction": 1}


@pytest.mark.parametrize("keep", [0.5, 0.0])
def test_a_truncated_file_is_skipped(tmp_path, keep):
    write(tmp_path / "a.hdf5", [episode(0)])
    broken = write(tmp_path / "b.hdf5", [episode(1)])
    broken.write_bytes(broken.read_bytes()[: int(keep * broken.stat().st_size)])
    (tmp_path / "c.hdf5").write_text("not HDF5 at all")
    found, skips = read(tmp_path)
    assert [e.task for e in found] == ["a"]
    assert skips.counts() == {"unreadable file": 2}


def test_a_damaged_block_costs_its_episode_only(tmp_path):
    path = write(tmp_path / "a.hdf5", [episode(0), episode(1)])
    with h5py.File(path) as file:
        block = file["data/demo_0/obs/agentview_rgb"].id.get_chunk_info(2)
    data = bytearray(path.read_bytes())
    data[block.byte_offset : block.byte_offset + block.size] = b"\xff" * block.size
    path.write_bytes(data)
    found, skips = read(path)
    assert [e.id for e in found] == ["a/demo_1"] and skips.counts() == {"unreadable episode": 1}


def test_a_target_with_no_frames_is_an_error(tmp_path):
    with pytest.raises(StageError, match="a target with no frames"):
        open_robots(tmp_path, Skips())
    with pytest.raises(StageError, match="there is no robot data at"):
        open_robots(tmp_path / "nowhere", Skips())
    write(tmp_path / "a.hdf5", [])
    with pytest.raises(StageError, match="a target with no frames"):
        open_robots(tmp_path, Skips())
    path = write(tmp_path / "a.hdf5", [episode(0)])
    change(path, "data/demo_0/obs/agentview_rgb")
    with pytest.raises(StageError, match=r"a target with no frames.*skipped: 1 missing key"):
        read(path)


def test_files_of_different_robots_are_refused(tmp_path):
    write(tmp_path / "a.hdf5", [episode(0)])
    libero(tmp_path / "b.hdf5")
    with pytest.raises(StageError, match="differ in what their actions mean: names"):
        open_robots(tmp_path, Skips())


def test_actions_that_no_one_explains_are_refused(tmp_path):
    path = write(tmp_path / "a.hdf5", [episode(0)])
    with h5py.File(path, "r+") as file:
        del file["data"].attrs["action_spec"]
    with pytest.raises(StageError, match="does not say what the 3 numbers of an action mean"):
        open_robots(path, Skips())
    with h5py.File(path, "r+") as file:
        file["data"].attrs["action_spec"] = '{"names": ["x"]}'
    with pytest.raises(StageError, match="no action spec"):
        open_robots(path, Skips())


def test_numbers_beside_the_frames(tmp_path):
    path = write(tmp_path / "t.hdf5", [episode(0, length=7)])
    looks = np.array([0, 3, 6])
    with h5py.File(path, "r+") as file:
        demo = file["data/demo_0"]
        demo["obs/arm"] = np.arange(14.0).reshape(7, 2)
        demo["truth/looks"], demo["truth/low"] = looks, 10.0 * looks.reshape(3, 1, 1)
        demo["short/low"] = np.zeros((3, 1))
    (found,) = open_robots(path, Skips(), state="arm, truth/low")
    assert np.allclose(found.state, np.column_stack([np.arange(14.0).reshape(7, 2), 10.0 * np.arange(7)]))
    skips = Skips()
    with pytest.raises(StageError):
        list(open_robots(path, skips, state="short/low"))
    assert skips.counts() == {"bad state": 1}
