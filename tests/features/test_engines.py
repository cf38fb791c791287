"""Every engine gives the same bytes, and goes on where another one stopped."""

import json
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embodied_midtrain.artifacts import Artifact, ArtifactMismatch, StageError
from embodied_midtrain.episodes import BadEpisode, StoredFrames
from embodied_midtrain.features import engines
from embodied_midtrain.features.engines import EngineConfig, Job, describe, elsewhere, local_devices
from embodied_midtrain.features.extract import _folders, embed
from embodied_midtrain.features.extractor import EmbedConfig
from embodied_midtrain.features.store import read_features
from tests import tiny
from tests.features.test_extract import Samples
from tools.kill_stage import ENGINES, Way, emt, run_killed, run_straight

CONFIG = EmbedConfig(part_size=4, batch_size=3, precision="fp32")
TWO = EngineConfig(devices=("cpu,cpu",))


def files(artifact: Artifact) -> dict[str, str]:
    return artifact.manifest["files"]


def test_two_processes_give_the_same_bytes_and_go_on_where_another_engine_stopped(tmp_path: Path) -> None:
    pool = Samples(30, broken=(5, 17))
    alone = embed(tmp_path / "alone", CONFIG, backbone=tiny.backbone("compact"), pool=pool)
    place = describe(str(tiny.folder("compact")))
    both = embed(tmp_path / "two", CONFIG, backbone=place, pool=pool, engine=TWO)
    assert both.manifest == alone.manifest and len(files(both)) == 8 + 2
    for name in ("shard-0000-000002.parquet", "shard-0000-000005.parquet"):
        alone.file(name).unlink()
    manifest = (alone.path / "manifest.json").read_text()
    (alone.path / "manifest.json").write_text(manifest.replace('"status": "done"', '"status": "running"'))
    again = embed(tmp_path / "alone", CONFIG, backbone=place, pool=pool, engine=TWO)
    assert files(again) == files(both)
    with pytest.raises(ArtifactMismatch, match="inputs backbone"):
        embed(tmp_path / "two", CONFIG, backbone=describe(str(tiny.folder("smolvlm"))), pool=pool, engine=TWO)


class Recorded(tiny.Dots):
    """Frames that stay in their file; those of one episode are damaged."""

    def __iter__(self) -> Iterator:
        for episode in self.episodes:
            stored = episode.frames

            def read(wanted, stored=stored, id=episode.id) -> np.ndarray:
                if id == "e1":
                    raise BadEpisode("broken frame", "cut short")
                return stored[list(wanted)]

            yield replace(episode, frames=StoredFrames(stored.shape, read))


def test_frames_that_cannot_be_sent_are_read_here(tmp_path: Path) -> None:
    config = replace(CONFIG, frames_per_episode=2)
    options = {"target": Recorded(3, 4), "max_bad": 1.0}
    alone = embed(tmp_path / "alone", config, backbone=tiny.backbone("compact"), **options)
    place = describe(str(tiny.folder("compact")))
    assert embed(tmp_path / "two", config, backbone=place, engine=TWO, **options).manifest == alone.manifest
    assert alone.counts == {"used": 4, "skipped": {"broken frame": 2}}


def die(*_: object) -> None:
    os._exit(3)


def test_a_worker_that_dies_or_finds_other_weights_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = describe(str(tiny.folder("compact")))
    one = EngineConfig(devices=("cpu",))
    with pytest.raises(StageError, match=r"cpu finds other weights under .*tiny-compact"):
        embed(tmp_path / "a", CONFIG, backbone=replace(place, weights="0" * 16), pool=Samples(9), engine=one)
    monkeypatch.setattr(engines, "open_pipeline", die)
    with pytest.raises(StageError, match="ended with exit code 3: too little memory"):
        embed(tmp_path / "c", CONFIG, backbone=place, pool=Samples(9), engine=one)


def test_settings_that_do_not_go_together() -> None:
    assert local_devices(EngineConfig(devices=("cpu,cpu", "cpu"))) == ["cpu"] * 3
    assert not elsewhere(EngineConfig()) and elsewhere(TWO) and elsewhere(EngineConfig(engine="ray"))
    for wrong, words in (
        (EngineConfig(devices=("cuda:99",)), "there is no cuda:99: this machine shows"),
        (EngineConfig(devices=("tpuu",)), "'tpuu' is no device"),
        (EngineConfig(workers=2), "for --engine ray"),
        (EngineConfig(engine="ray", devices=("cpu",)), "for --engine local"),
    ):
        with pytest.raises(StageError, match=words):
            elsewhere(wrong)


def test_a_store_for_each_of_several_backbones() -> None:
    assert _folders(Path("out"), ["compact"]) == [Path("out")]
    assert _folders(Path("out"), ["compact", "Qwen/Qwen3-VL"]) == [Path("out/compact"), Path("out/Qwen3-VL")]
    with pytest.raises(StageError, match="an --out of its own"):
        _folders(Path("out"), ["a/same", "b/same"])


def test_what_a_worker_cannot_do_is_said() -> None:
    job = Job(replace(describe(str(tiny.folder("compact"))), place="/nowhere"), CONFIG, 1, 1)
    with pytest.raises(StageError, match=r"the node x cannot open the backbone /nowhere; .*reachable"):
        job.open(None, "the node x")
    with pytest.raises(StageError, match=r"the node x has embodied-midtrain .*, this machine 0\.0: install the same"):
        replace(job, version="0.0").open(None, "the node x")


@pytest.mark.slow
def test_killed_twice_and_still_the_same(tmp_path: Path) -> None:
    rows = [{"id": str(n), "question": "What is this?", "answer": "a thing " * (1 + n % 7)} for n in range(400)]
    rows[7] = {"id": "7", "question": "What is this?", "answer": " "}
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = emt("embed", "--pool", tmp_path / "pool.jsonl", "--backbone", tiny.folder("compact"), "--part-size", "4")
    seconds = run_straight(command, tmp_path / "straight")
    way = Way("in turn", [command, command + ENGINES["two processes"]], tmp_path / "straight", seconds)
    run_killed(way, tmp_path, 2, random.Random(0))
    assert len(way.moments) == 2 and not way.different
    assert len(read_features(Artifact.open(tmp_path / "round-0")).ids) == 399
