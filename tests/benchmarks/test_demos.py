"""Demonstrations: what is in them, and that neither processes, a kill nor a full disk change or lose any."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from embodied_midtrain.artifacts import DiskFull, Skips, StageError
from embodied_midtrain.benchmarks.demos import DemosConfig, demos_command, record_demos
from embodied_midtrain.robots.opening import open_robots
from tests.benchmarks.fake_world import SLOW, FakeWorld

FAKE = DemosConfig(tasks=("slide",), episodes=12, size=24, benchmark="tests.benchmarks.fake_world:FakeWorld")


def content(artifact):
    return artifact.manifest["files"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return record_demos(tmp_path_factory.mktemp("demos"), FAKE, processes=1)


def test_the_layout_is_robomimics(recorded):
    with h5py.File(recorded.file("slide.hdf5")) as file:
        data = file["data"]
        assert json.loads(data.attrs["env_args"])["env_name"] == "slide"
        assert data.attrs["total"] == recorded.counts["frames"] and data.attrs["num_demos"] == 12 == len(data)
        for demo in data.values():
            length = demo.attrs["num_samples"]
            assert demo["actions"].shape == (length, 2) and demo["actions"].dtype == np.float32
            assert demo["obs/agentview_rgb"].shape == (length, 24, 24, 3)
            assert demo["obs/agentview_rgb"].dtype == np.uint8
            assert demo["dones"][:].tolist() == [0] * (length - 1) + [1]
        masks = {name: [n.decode() for n in names] for name, names in file["mask"].items()}
        assert masks["train"] == [f"demo_{n}" for n in range(12)]
        assert sorted(masks["clean"] + masks["disturbed"]) == sorted(masks["train"]) and len(masks["clean"]) == 6


def test_labels_are_the_experts_whatever_was_executed(recorded):
    """In the fake world the frame tells where light and mark are, hence what the expert wanted there."""
    for episode in open_robots(recorded.path, Skips()):
        light, mark = (episode.frames[:, 0, :, channel].argmax(1) for channel in (0, 1))
        way = np.sign(mark - light)
        label = episode.actions[:, 0]
        assert (np.sign(label)[np.abs(mark - light) > 1] == way[np.abs(mark - light) > 1]).all()
        assert (episode.actions[:, 1] == -1).all()


def test_half_are_disturbed_and_say_so(recorded):
    with h5py.File(recorded.file("slide.hdf5")) as file:
        noise = [file[f"data/demo_{n}"].attrs["noise"] for n in range(12)]
        assert noise == [0.0, 0.2] * 6
        for n in range(12):
            demo = file[f"data/demo_{n}"]
            moved, wanted = np.diff(demo["obs/proprioception"][:, 0]), demo["actions"][:-1, 0]
            assert np.allclose(moved, wanted, atol=1e-4) == (n % 2 == 0)


def test_a_few_steps_follow_success(tmp_path):
    lengths = [
        [len(e.actions) for e in open_robots(record_demos(tmp_path / str(n), config, processes=1).path, Skips())]
        for n, config in enumerate(replace(FAKE, episodes=4, disturbed=0.0, after_success=n) for n in (0, 5))
    ]
    assert [b - a for a, b in zip(*lengths, strict=True)] == [5, 5, 5, 5]


def test_wordings_take_turns(recorded):
    words = [e.instruction for e in open_robots(recorded.path, Skips())]
    assert words == ["slide to the mark", "bring the light to the mark by slide"] * 6


def test_what_evaluations_hold_out_can_be_shown_for_questions(tmp_path):
    shown = record_demos(tmp_path / "demos", replace(FAKE, episodes=2, wording="held-out"), processes=1)
    known = set(FakeWorld().instructions("slide").held_out)
    assert {e.instruction for e in open_robots(shown.path, Skips())} <= known


def test_the_number_of_processes_changes_nothing(recorded, tmp_path):
    assert content(record_demos(tmp_path, FAKE, processes=2)) == content(recorded)


def test_another_seed_gives_other_starts(recorded, tmp_path):
    other = record_demos(tmp_path, replace(FAKE, seed=1), processes=1)
    starts = set()
    for artifact in (recorded, other):
        with h5py.File(artifact.file("slide.hdf5")) as file:
            starts |= {float(demo["obs/proprioception"][0, 0]) for demo in file["data"].values()}
    assert len(starts) == 24


def test_a_kill_loses_no_finished_part_and_changes_nothing(recorded, tmp_path):
    arguments = ["--tasks", "slide", "--episodes", "12", "--size", "24", "--benchmark", FAKE.benchmark]
    command = [sys.executable, "-m", "embodied_midtrain.cli", "demos", "--out", str(tmp_path), *arguments]
    root = Path(__file__).parents[2]  # Where the fake world is found.
    process = subprocess.Popen([*command, "--processes", "1"], env={**os.environ, SLOW: "0.02"}, cwd=root)
    first = tmp_path / "parts" / "slide-00000.json"
    while not first.is_file() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "killed in the middle"
    written = first.stat().st_mtime_ns
    went_on = record_demos(tmp_path, FAKE, processes=1)
    assert first.stat().st_mtime_ns == written, "the finished part was left alone"
    assert content(went_on) == content(recorded)
    assert not list(tmp_path.rglob(".tmp-*")) and not list((tmp_path / "parts").glob("*.hdf5"))


def test_a_full_disk_is_named_and_keeps_what_was_finished(recorded, tmp_path, monkeypatch):
    """Tried on a real full disk too (a small tmpfs): HDF5 crashes there, hence these two ways round it."""
    write, calls = Path.write_bytes, []

    def no_space(path, data):
        if path.suffix == ".hdf5":
            calls.append(path)
            if len(calls) == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(DiskFull, match="free some space and give the same command again"):
        record_demos(tmp_path, FAKE, processes=1)
    assert (tmp_path / "parts" / "slide-00000.hdf5").is_file() and not list(tmp_path.rglob(".tmp-*"))
    nothing_free = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("embodied_midtrain.robots.hdf5.shutil.disk_usage", lambda path: nothing_free)
    with pytest.raises(DiskFull, match=r"slide\.hdf5"):
        record_demos(tmp_path, FAKE, processes=1)
    monkeypatch.undo()
    assert content(record_demos(tmp_path, FAKE, processes=1)) == content(recorded)


def test_an_expert_that_never_succeeds_is_named_with_remedies(tmp_path):
    with pytest.raises(StageError, match=r"expert of hopeless did not succeed in 3 attempts.*--no-binary-gripper"):
        record_demos(tmp_path / "one", replace(FAKE, tasks=("hopeless",), attempts=3), processes=1)
    with pytest.raises(StageError, match="did not succeed"):
        record_demos(tmp_path / "two", replace(FAKE, tasks=("hopeless",), attempts=3), processes=2)


def test_failed_attempts_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.benchmarks.fake_world.FakeWorld.horizon", lambda self, task: 14)
    counts = record_demos(tmp_path, replace(FAKE, after_success=0), processes=1).counts
    assert counts["failures"] > 0
    assert counts["attempts"] == counts["episodes"] + counts["failures"] and counts["episodes"] == 12


def test_a_simulator_that_raises_or_dies_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("embodied_midtrain.benchmarks.demos.training_state", lambda seed, number: 3)
    with pytest.raises(FloatingPointError):
        record_demos(tmp_path / "here", replace(FAKE, tasks=("raises",)), processes=1)


def test_wrong_settings_are_explained(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'pick-place-v3'"):
        record_demos(tmp_path, DemosConfig(tasks=("pickplace-v3",)))
    for wrong in ({"episodes": 0}, {"size": 4}, {"noise_memory": 1.0}, {"disturbed": 1.5}):
        with pytest.raises(ValueError):
            record_demos(tmp_path, replace(FAKE, **wrong))
    assert not any(tmp_path.iterdir())


def test_without_rendering_the_message_names_the_packages(tmp_path):
    pytest.importorskip("metaworld")
    env = {**os.environ, "__EGL_VENDOR_LIBRARY_FILENAMES": "/nowhere.json", "MUJOCO_GL": "egl"}
    command = [sys.executable, "-m", "embodied_midtrain.cli", "demos", "--out", str(tmp_path), "--tasks", "reach-v3"]
    done = subprocess.run([*command, "--processes", "1"], env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert "apt-get install libegl1" in done.stderr and "Traceback" not in done.stderr


def test_a_task_may_have_its_own_number(tmp_path):
    config = replace(FAKE, tasks=("slide", "raises"), episodes=2, episodes_of={"slide": 3})
    rows = record_demos(tmp_path / "demos", config, processes=1).counts["tasks"]
    assert {task: row["episodes"] for task, row in rows.items()} == {"slide": 3, "raises": 2}
    with pytest.raises(ValueError, match="not recorded: slide"):
        record_demos(tmp_path / "other", replace(config, tasks=("raises",)), processes=1)


def test_the_command_prints_what_was_recorded(tmp_path, capsys):
    demos_command(tmp_path, replace(FAKE, episodes=2), processes=1)
    assert "2 episodes" in capsys.readouterr().out
