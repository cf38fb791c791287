"""Probing made-up robots: what can be read is, what cannot is not, and bad input is refused by name."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from embodied_midtrain.artifacts import Artifact, Skips, StageError, open_stage, read_json, write_json
from embodied_midtrain.cli import main
from embodied_midtrain.diagnostics.labels import labels_of, rows_at, tracks_of
from embodied_midtrain.diagnostics.probe import ProbeConfig, print_probe, probe
from embodied_midtrain.episodes import Episode
from embodied_midtrain.features.extract import embed
from embodied_midtrain.features.extractor import EmbedConfig
from embodied_midtrain.features.store import read_features, write_shard
from embodied_midtrain.robots.opening import open_robots
from tests.robots.test_hdf5 import write
from tests.tiny import SPEC, Dots, backbone


class Made:
    """Robots without pictures: actions of which the features know a part."""

    name, spec = "made", SPEC

    def __init__(self, episodes=30, length=20, same=False):
        rng = np.random.default_rng(0)
        self.episodes = []
        for n in range(episodes):
            actions = rng.uniform(-1, 1, (length, 3)).astype(np.float32)
            actions[:, 2] = np.where(np.arange(length) < rng.integers(5, 15), -1, 1)
            if same:
                actions[:] = 0.5
            state = rng.standard_normal((length, 2)).astype(np.float32)
            said = "go left" if n % 2 and not same else "go right"
            frames = np.zeros((length, 4, 4, 3), np.uint8)
            self.episodes.append(Episode(f"e{n}", "task", said, frames, actions, state=state))

    def __iter__(self):
        return iter(self.episodes)

    def fingerprint(self):
        return f"made-{len(self.episodes)}"


def store(folder, robots, spoil=0, **config) -> Artifact:
    """Features whose first numbers are the x of the action, whether the gripper is closed, and a state."""
    rng = np.random.default_rng(1)
    keys, rows = [], []
    for e in robots:
        for k in range(len(e.actions)):
            noise = 0.1 * rng.standard_normal(8)
            noise[:3] += e.actions[k, 0], e.actions[k, 2], 0 if e.state is None else e.state[k, 1]
            keys.append((e.task, f"{e.id}/{k:04d}"))
            rows.append(noise)
    features = np.array(rows, np.float16)
    features[:spoil] = np.nan
    config = {"layer": -1, "pooling": "mean", **config}
    with open_stage(folder, "embed", config, {"backbone": "b", "target": robots.fingerprint()}) as run:
        write_shard(run.file("shard-0000-000000.parquet"), keys, features)
        write_json(run.file("store.json"), {"backbone": "made up"})
        return run.finish({"used": len(keys)})


def test_what_can_be_read_is_and_what_cannot_is_not(tmp_path, capsys):
    robots = Made()
    artifact = probe(
        tmp_path / "out", ProbeConfig(chunk=1, state="places"), features=store(tmp_path / "f", robots), target=robots
    )
    facts = read_json(artifact.file("probe.json"))
    found = facts["layers"][0]["targets"]
    assert set(found) == {"actions", "gripper", "phase", "instruction", "state"} and not facts["missing"]
    assert found["actions"]["parts"]["x"] > 0.9 and found["actions"]["parts"]["gripper"] > 0.9
    assert found["actions"]["parts"]["y"] < 0.05
    assert found["gripper"]["value"] > 0.95 and found["gripper"]["measure"] == "accuracy"
    assert found["phase"]["value"] > 0.95 and len(found["phase"]["parts"]) == 2
    assert found["instruction"]["low"] < 0.5 < found["instruction"]["high"]
    assert found["state"]["parts"]["places[1]"] > 0.9 and found["state"]["parts"]["places[0]"] < 0.05
    # Of other episodes' labels only what time alone says is left: the gripper closes late in all of them.
    assert found["state"]["control"] < 0.05 and 0.6 < found["gripper"]["control"] < 0.95
    print_probe(facts)
    assert "x 0.9" in capsys.readouterr().out


def test_every_layer_in_one_pass(tmp_path):
    model, robots = backbone("compact"), Dots()
    settings = EmbedConfig(precision="fp32", pooling="image", frames_per_episode=8)
    several = replace(settings, layers=(0, 1, model.layers))
    made = embed(tmp_path / "all", several, backbone=model, target=robots)
    together = read_features(made).features
    for n, layer in enumerate(several.layers):
        alone = embed(tmp_path / f"layer-{layer}", replace(settings, layer=layer), backbone=model, target=robots)
        width = model.hidden
        assert np.allclose(together[:, n * width : (n + 1) * width], read_features(alone).features, atol=1e-3)
    facts = read_json(probe(tmp_path / "out", ProbeConfig(folds=3), features=made, target=robots).file("probe.json"))
    assert [one["layer"] for one in facts["layers"]] == [0, 1, model.layers]
    assert facts["missing"] == {"state": "no --state was named"}
    with pytest.raises(ValueError, match="this backbone has 0"):
        embed(tmp_path / "x", replace(settings, layers=(0, 99)), backbone=model, target=robots)
    assert not (tmp_path / "x").exists()


def test_bad_input_has_a_name(tmp_path):
    robots = Made(6)
    features = store(tmp_path / "f", robots)
    with pytest.raises(StageError, match="of other robot data than made"):
        probe(tmp_path / "a", ProbeConfig(), features=features, target=Made(7))
    one = Made(1)
    with pytest.raises(StageError, match="usable frames of 1 episodes"):
        probe(tmp_path / "b", ProbeConfig(), features=store(tmp_path / "one", one), target=one)
    flat = Made(6, same=True)
    with pytest.raises(StageError, match="the same for all frames"):
        probe(tmp_path / "c", ProbeConfig(), features=store(tmp_path / "flat", flat), target=flat)
    with pytest.raises(ValueError, match="wanted at least 1 and 3"):
        probe(tmp_path / "d", ProbeConfig(folds=2), features=features, target=robots)
    spoilt = store(tmp_path / "nan", robots, spoil=3, other=1)
    artifact = probe(tmp_path / "e", ProbeConfig(), features=spoilt, target=robots)
    assert artifact.counts["rows"] == 117 and artifact.counts["skipped"] == {"nan feature": 3}
    assert "task/e0/0002" in artifact.file("skipped.jsonl").read_text()
    with (
        open_stage(tmp_path / "pool", "embed", {"layer": -1}, {"pool": "p"}) as run,
        pytest.raises(StageError) as error,
    ):
        probe(tmp_path / "f", ProbeConfig(), features=run.finish({}), target=robots)
    assert "of a pool, not of made" in str(error.value)


def test_episodes_without_the_state_are_left_out_and_listed(tmp_path, capsys):
    data = write(tmp_path / "task.hdf5", Made(7).episodes, SPEC)
    with h5py.File(data, "r+") as file:
        for n in range(1, 7):
            file[f"data/demo_{n}/obs/places"] = np.random.default_rng(n).standard_normal((20, 2))
    store(tmp_path / "f", open_robots(data, Skips()))
    call = ["probe", "--features", str(tmp_path / "f"), "--target", str(data), "--state", "places"]
    assert main([*call, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "120 frames of 6 episodes" in said and "state        R2" in said and "{'missing key': 1}" in said
    assert "task/demo_0" in (tmp_path / "out" / "skipped.jsonl").read_text()


def test_controls_take_another_episode_as_far_into_it():
    episode, frame = np.repeat(np.arange(4), 3), np.tile([0, 4, 9], 4)
    lengths = np.array([10, 10, 19, 10, 50])
    at = rows_at(episode, frame, lengths, 0)
    assert (at.other != episode).all() and sorted(set(at.other)) == [0, 1, 2, 3]
    assert all(len(set(at.other[episode == n])) == 1 for n in range(4))
    assert at.other_frame[at.other == 2].tolist() == [0, 8, 18]


def test_labels_of_data_that_say_less():
    robots = Made(4)
    tracks = tracks_of(robots)
    _, missing = labels_of(tracks, replace(SPEC, gripper=None), chunk=2, state=None)
    assert set(missing) == {"gripper", "phase", "state"}
    robots.episodes[0] = replace(robots.episodes[0], state=None)
    labels, missing = labels_of(tracks_of(robots), SPEC, chunk=2, state="places")
    assert missing == {"state": "places: not in every episode, or not finite"}
    chunks = labels[0].values[1]
    assert np.array_equal(chunks[0], robots.episodes[1].actions[:2].ravel())
    assert np.array_equal(chunks[-1], np.tile(robots.episodes[1].actions[-1], 2))


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert main(["probe", "--features", str(tmp_path), "--target", str(tmp_path), "--out", str(tmp_path / "o")]) == 1
    assert "Traceback" not in capsys.readouterr().err
