"""Data without a simulator: a state, perhaps a calibration."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from embodied_midtrain.artifacts import Skips, StageError, read_json
from embodied_midtrain.config import ConfigError
from embodied_midtrain.coupled.calibration import CameraEntry, read_calibration
from embodied_midtrain.coupled.couple import CoupleConfig, couple, read_facts
from embodied_midtrain.coupled.measured import MeasuredConfig
from embodied_midtrain.coupled.opening import open_traces
from embodied_midtrain.episodes import ActionSpec, Episode
from embodied_midtrain.robots.export import ExportConfig, export_lerobot
from embodied_midtrain.robots.hdf5 import CAMERA, close_header, write_demo, write_header
from embodied_midtrain.robots.opening import open_robots
from tests.coupled import made
from tests.robots.test_rlds import BRIDGE

SPEC = ActionSpec(("x", "y", "z", "gripper"), "delta", "world", "none", 3, 1, (-1.0,) * 4, (1.0,) * 4, 20.0)
STATE = MeasuredConfig(state="pose", opening=3, every=3)
COUPLE = CoupleConfig(looks_per_episode=12, questions_per_look=9)


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    return written(tmp_path_factory.mktemp("real") / "stack.hdf5")


def written(path, unknown=()):
    """Three episodes; of those in `unknown` one state is no number."""
    with h5py.File(path, "w") as file:
        data = write_header(file, task="stack", instruction="stack the cubes", spec=SPEC, environment={})
        for number in range(3):
            trace = made.trace(number, every=1, shift=(0.01 * number, 0.0, 0.0))
            frames = trace.view("agent").frames
            state = np.concatenate([trace.place, trace.opening[:, None]], 1)
            state[30:31] = np.nan if number in unknown else state[30]
            episode = Episode("", "stack", trace.instruction, frames, np.zeros((len(frames), 4), np.float32))
            write_demo(data, number, episode, observations={"pose": state})
        close_header(file, {})
    return path


def as_lerobot(episodes, folder):
    """The same, with pictures as a video and the state as a feature of its own."""
    export_lerobot(open_robots(episodes, Skips()), folder, ExportConfig())
    info = json.loads((folder / "meta/info.json").read_text())
    states = np.concatenate([one.state for one in open_robots(episodes, Skips(), state="pose")])
    info["features"]["observation.state"] = {**info["features"]["action"], "shape": [states.shape[1]]}
    (folder / "meta/info.json").write_text(json.dumps(info))
    (table,) = folder.glob("data/*/*.parquet")
    pq.write_table(pq.read_table(table).append_column("observation.state", [states.tolist()]), table)
    return folder, replace(STATE, state="observation.state")


def as_calvin(episodes, folder):
    """The same as numbered steps, where the gripper's opening is the seventh number."""
    (folder / "lang_annotations").mkdir(parents=True)
    step, stretches = 0, []
    for one in open_robots(episodes, Skips(), state="pose"):
        stretches.append((step, step + len(one.frames) - 1))
        for frame, state in zip(one.frames[:], one.state, strict=True):
            known = np.concatenate([state[:3], np.zeros(3), state[3:]])
            names = {"rgb_static": frame, "rel_actions": np.zeros(7), "robot_obs": known}
            np.savez(folder / f"episode_{step:07d}.npz", **names)
            step += 1
    notes = {"language": {"ann": ["stack the cubes"] * 3, "task": ["stack"] * 3}, "info": {"indx": stretches}}
    np.save(folder / "lang_annotations/auto_lang_ann.npy", notes)
    return folder, replace(STATE, state="robot_obs", opening=6)


def calibration(folder, **changed):
    right, up, forward = made.CAMERA.axes
    entry = {
        "position": made.CAMERA.position.tolist(),
        "rotation": np.stack([right, -up, forward], 1).tolist(),
        "fovy": made.CAMERA.fovy,
    }
    path = folder / "cameras.yaml"
    path.write_text(yaml.safe_dump({"cameras": {"agent": {**entry, **changed}}}))
    return read_calibration(path)


def asked(folder, episodes, known=None, measured=STATE):
    artifact = couple(folder, COUPLE, episodes=open_traces(episodes, measured, calibration=known))
    left = read_json(artifact.file("coupled.json"))["left_out"]
    return artifact, {row["kind"] for row in read_facts(folder)}, left


def test_with_a_calibration_places_are_asked_for(tmp_path, episodes):
    artifact, kinds, left = asked(tmp_path / "out", episodes, calibration(tmp_path))
    assert kinds == {"plan", "phase", "next", "path", "path-end", "grasp-point"}
    assert artifact.counts["skipped"] == {} and left["where"] == {"masks of things not known": 36}
    truth = made.trace(0, every=1)
    row = next(r for r in read_facts(tmp_path / "out") if r["kind"] == "grasp-point" and r["episode"].endswith("_0"))
    step = row["about"][2]
    wanted = made.CAMERA.project(truth.place[step], (made.SIDE, made.SIDE))[:2] / made.SIDE
    assert np.abs(wanted - row["shown"][0]).max() < 1e-3


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """The same episodes with the gripper's pixel among the numbers; of the second it was lost for a while."""
    path = written(tmp_path_factory.mktemp("tracked") / "stack.hdf5")
    with h5py.File(path, "r+") as file:
        for number in range(3):
            obs = file[f"data/demo_{number}/obs"]
            seen = made.CAMERA.project(obs["pose"][:, :3], (made.SIDE, made.SIDE))[:, :2].astype(np.float32)
            if number == 1:
                seen[20:40] = np.nan
            obs["track"] = seen
    return path, replace(STATE, state="pose,track", tracked=(4, 5))


def test_a_track_of_the_gripper_stands_in_for_a_calibration(tmp_path, episodes, tracked):
    path, measured = tracked
    artifact, kinds, left = asked(tmp_path / "out", path, measured=measured)
    assert kinds == {"plan", "phase", "next", "path", "path-end", "grasp-point"}
    assert left["path"]["the track of the gripper was lost"] > 0 and artifact.counts["skipped"] == {}
    asked(tmp_path / "known", episodes, calibration(tmp_path))
    paths = [
        {(r["kind"], *r["about"], r["episode"], r["step"]): r["shown"] for r in read_facts(tmp_path / at) if r["shown"]}
        for at in ("out", "known")
    ]
    same = paths[0].keys() & paths[1].keys()
    assert len(same) >= 30 and max(np.abs(np.subtract(paths[0][key], paths[1][key])).max() for key in same) <= 2e-3


def test_a_track_that_is_not_of_the_pictures_is_found(tmp_path, tracked):
    path, measured = tracked
    artifact, kinds, _ = asked(tmp_path / "out", path, measured=replace(measured, tracked=(5, 4)))
    assert artifact.counts["skipped"] == {"track does not fit the pictures": 3} and kinds == {"plan", "phase", "next"}


def test_a_camera_that_was_moved_between_episodes(tmp_path, episodes):
    wrong = {"position": [9.0, 9.0, 9.0]}
    calibration(tmp_path)
    right = yaml.safe_load((tmp_path / "cameras.yaml").read_text())["cameras"]["agent"]
    (tmp_path / "moved.yaml").write_text(
        yaml.safe_dump({"cameras": {"agent": right | wrong}, "episodes": {first_id(episodes): {"agent": right}}})
    )
    artifact, _, _ = asked(tmp_path / "out", episodes, read_calibration(tmp_path / "moved.yaml"))
    assert artifact.counts["skipped"] == {"calibration does not fit the pictures": 2}
    assert {row["episode"] for row in read_facts(tmp_path / "out") if row["shown"]} == {first_id(episodes)}


def first_id(episodes):
    return next(iter(open_robots(episodes, Skips()))).id


@pytest.mark.parametrize("write", [as_lerobot, as_calvin])
def test_every_format_gives_the_same_questions(tmp_path, episodes, write):
    asked(tmp_path / "hdf5", episodes, calibration(tmp_path))
    data, measured = write(episodes, tmp_path / "data")
    artifact, _, _ = asked(tmp_path / "out", data, calibration(tmp_path), measured=measured)
    assert artifact.counts["skipped"] == {}
    one, other = ([(r["kind"], r["about"], r["answer"]) for r in read_facts(tmp_path / at)] for at in ("hdf5", "out"))
    assert one and one == other


def test_without_one_they_are_left_out_and_counted(tmp_path, episodes):
    _, kinds, left = asked(tmp_path / "out", episodes)
    assert kinds == {"plan", "phase", "next"}
    assert left["path"] == {"no calibration": 36}


def test_without_a_gripper_there_are_paths_and_nothing_else(tmp_path, episodes):
    bare = MeasuredConfig(state="pose", every=3)
    _, kinds, left = asked(tmp_path / "out", episodes, calibration(tmp_path), measured=bare)
    assert kinds == {"path", "path-end"} and left["grasp-point"]["episode without a grasp"] == 3
    with pytest.raises(StageError, match=r"no calibration.*--opening"):
        asked(tmp_path / "nothing", episodes, measured=bare)


def test_a_state_that_is_no_number(tmp_path):
    artifact, kinds, _ = asked(tmp_path / "out", written(tmp_path / "stack.hdf5", unknown=[1]), calibration(tmp_path))
    assert artifact.counts["skipped"] == {"nan state": 1} and "path" in kinds
    assert {row["episode"] for row in read_facts(tmp_path / "out")} == {"stack/demo_0", "stack/demo_2"}


def test_a_calibration_of_another_camera(tmp_path, episodes):
    known = calibration(tmp_path)
    (entry,) = known.cameras.values()
    for cameras, camera in (({"left": entry}, CAMERA), ({"left": entry, "right": entry}, None)):
        with pytest.raises(StageError, match="the calibration names left"):
            list(open_traces(episodes, STATE, camera=camera, calibration=replace(known, cameras=cameras)))
    # The only one is meant where none is named.
    assert len(list(open_traces(episodes, STATE, calibration=replace(known, cameras={"left": entry})))) == 3


@pytest.mark.parametrize("wrong", [{"convention": "opengl"}, {"position": [0.9, -0.2, 0.9]}])
def test_one_that_does_not_fit_is_found(tmp_path, episodes, wrong):
    artifact, kinds, _ = asked(tmp_path / "out", episodes, calibration(tmp_path, **wrong))
    assert kinds == {"plan", "phase", "next"}
    assert artifact.counts["skipped"] == {"calibration does not fit the pictures": 3}


def test_pixels_and_field_of_view_are_the_same_camera(tmp_path):
    entry = calibration(tmp_path).cameras["agent"]
    one = entry.pinhole((96, 128))
    focal = one.focal[0] * 5
    pixels = CameraEntry(entry.position, entry.rotation, size=(480, 640), fx=focal, fy=focal, cx=320, cy=240)
    other = pixels.pinhole((96, 128))
    points = np.random.default_rng(0).uniform(-0.1, 0.1, (20, 3))
    assert np.allclose(one.project(points), other.project(points))
    assert np.allclose(one.project(points), made.CAMERA.project(points, (96, 128)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fovy": None}, "needs fovy"),
        ({"fovy": 200.0}, "between 0 and 180"),
        ({"fovy": None, "fx": 1.0, "fy": 1.0, "cx": 0.0, "cy": 0.0, "size": [0, 0]}, "above 0"),
        ({"rotation": [[1, 0, 0], [0, 1, 0], [0, 0, 2]]}, "no rotation"),
        ({"positon": [0, 0, 0]}, "did you mean 'position'"),
    ],
)
def test_files_that_make_no_camera(tmp_path, changed, message):
    with pytest.raises(ConfigError, match=message):
        calibration(tmp_path, **changed).cameras["agent"].pinhole((96, 96))


def test_a_wrong_index_and_a_missing_name_say_what_to_do(tmp_path, episodes):
    with pytest.raises(StageError, match="--place"):
        asked(tmp_path / "a", episodes, measured=MeasuredConfig(state="pose", place=(0, 1, 9)))
    with pytest.raises(StageError, match="--tracked"):
        asked(tmp_path / "b", episodes, measured=replace(STATE, tracked=(4, 5)))
    with pytest.raises(StageError, match="--state"):
        open_traces(episodes)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(StageError, match="that --state names"):
        open_traces(tmp_path, calibration=calibration(tmp_path))


@pytest.mark.skipif(not BRIDGE.is_dir(), reason="the real episodes are not at hand")
def test_real_bridge_episodes(tmp_path):
    _, kinds, left = asked(tmp_path / "out", BRIDGE, measured=MeasuredConfig(state="state", opening=6, every=2))
    assert kinds == {"plan", "phase", "next"}
    assert left["path"].keys() == {"no calibration"} and left["grasp-point"]["episode without a grasp"] == 8
    answers = {row["answer"] for row in read_facts(tmp_path / "out") if row["kind"] == "plan"}
    assert len(answers) > 3 and not any(answer == "1. move the gripper to the place to act" for answer in answers)
