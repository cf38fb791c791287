import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from embodied_midtrain.artifacts import ArtifactMismatch, Skips, StageError, share_of
from embodied_midtrain.features import extractor
from embodied_midtrain.features.extract import embed
from embodied_midtrain.features.extractor import PADDING, EmbedConfig, batches_of, encode
from embodied_midtrain.features.pooling import Pooling, pool_states
from embodied_midtrain.features.store import read_features
from embodied_midtrain.samples import Picture, Sample, caption
from embodied_midtrain.sources.opening import open_pool
from tests import tiny

CONFIG = EmbedConfig(part_size=4, batch_size=3, precision="fp32")


def picture(shade: int) -> Picture:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 20), (shade, 255 - shade, 7 * shade % 255)).save(buffer, "PNG")
    return Picture(data=buffer.getvalue())


class Samples:
    """A pool in memory; every third sample shares its picture with the one before."""

    name = "memory"

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        self.rows: list[Sample] = []
        for n in range(count):
            shown = Picture(data=b"\x89PNG broken") if n in broken else picture(20 * (n - (n % 3 == 2)))
            self.rows.append(caption("s", f"{n:03d}", shown, "a thing " * (1 + n % 4)))

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.rows)

    def fingerprint(self) -> str:
        return f"memory {len(self.rows)}"


class Killed(BaseException):
    """As sudden as a signal, for a process that must live on."""


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_features_equal_the_plain_forward(kind: str, tmp_path: Path) -> None:
    backbone = tiny.backbone(kind)
    pool = Samples(10)
    table = read_features(embed(tmp_path / "out", CONFIG, backbone=backbone, pool=pool))
    assert table.ids.tolist() == [sample.id for sample in pool]
    for sample, feature in zip(pool, table.features, strict=True):
        batch = backbone.collate([backbone.render(sample)])
        with torch.inference_mode():
            wanted = (
                backbone.model(**backbone.own_inputs(batch), output_hidden_states=True).hidden_states[-1][0].mean(0)
            )
        assert np.linalg.norm(feature - wanted.numpy()) <= 1e-2 * float(wanted.norm())


def test_broken_pictures_are_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    artifact = embed(tmp_path / "out", CONFIG, backbone=tiny.backbone("compact"), pool=Samples(9, broken=(2, 8)))
    assert artifact.counts == {"used": 7, "skipped": {"broken image": 2}}
    rows = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert [row["where"] for row in rows] == ["s/002", "s/008"]
    progress = json.loads((tmp_path / "out" / "logs" / "progress.json").read_text())
    assert (progress["rows"], progress["skipped"], progress["total"]) == (7, 2, None)


def test_an_interrupted_run_ends_like_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny.backbone("compact")
    whole = embed(tmp_path / "whole", CONFIG, backbone=backbone, pool=Samples(18, broken=(5,)))
    calls = 0

    def dying(*arguments: object) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Killed
        return encode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(extractor, "encode", dying)
    with pytest.raises(Killed):
        embed(tmp_path / "cut", CONFIG, backbone=backbone, pool=Samples(18, broken=(5,)))
    again = embed(tmp_path / "cut", CONFIG, backbone=backbone, pool=Samples(18, broken=(5,)))
    assert calls == 3 + 3, "finished parts were computed again"
    assert again.fingerprint == whole.fingerprint
    with pytest.raises(ArtifactMismatch, match="inputs pool"):
        embed(tmp_path / "cut", CONFIG, backbone=backbone, pool=Samples(17))
    with pytest.raises(ArtifactMismatch, match="config pooling: 'mean' there, 'last' now"):
        embed(tmp_path / "cut", replace(CONFIG, pooling="last"), backbone=backbone, pool=Samples(18))


def test_robot_frames_are_spread_over_the_episode(tmp_path: Path) -> None:
    artifact = embed(
        tmp_path / "out",
        replace(CONFIG, frames_per_episode=3),
        backbone=tiny.backbone("compact"),
        target=tiny.Dots(2, 9),
    )
    table = read_features(artifact)
    assert set(table.sources.tolist()) == {"left-v0", "right-v0"}
    assert [i.rsplit("/", 1)[1] for i in table.ids.tolist()] == ["0000", "0004", "0008"] * 2


def test_a_target_without_frames_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="a target with no frames"):
        embed(tmp_path / "out", CONFIG, backbone=tiny.backbone("compact"), target=tiny.Dots(0, 9))


def test_nan_weights_are_told(tmp_path: Path) -> None:
    backbone = tiny.backbone("compact")
    with torch.no_grad():
        next(iter(backbone.connector.parameters())).fill_(float("nan"))
    with pytest.raises(StageError, match="nan feature"):
        embed(tmp_path / "out", CONFIG, backbone=backbone, pool=Samples(5))


def test_a_users_file_with_every_fault(tmp_path: Path) -> None:
    good = picture(9).read()
    (tmp_path / "good.png").write_bytes(good)
    (tmp_path / "cut.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "zero.png").write_bytes(b"")

    def line(id: str, image: str, answer: str = "a red thing") -> str:
        turns = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": answer}]
        return json.dumps({"id": id, "image": image, "conversations": turns})

    lines = [line("1", "good.png"), "{ broken", line("2", "none.png"), line("3", "zero.png"), line("4", "cut.png")]
    lines += [line("5", "good.png", " "), line("1", "good.png"), line("6", "../out.png"), line("7", "good.png")]
    (tmp_path / "pool.jsonl").write_text("\n".join(lines))
    skips = Skips()
    pool = open_pool(tmp_path / "pool.jsonl", skips=skips)
    artifact = embed(tmp_path / "out", CONFIG, backbone=tiny.backbone("compact"), pool=pool, skips=skips)
    assert artifact.counts["used"] == 2
    assert artifact.counts["skipped"] == {
        "broken JSON": 1,
        "broken image": 1,
        "duplicate id": 1,
        "empty image": 1,
        "empty text": 1,
        "image outside its folder": 1,
        "missing image": 1,
    }


def test_pooling_takes_the_tokens_it_names() -> None:
    states = torch.arange(8, dtype=torch.float32).reshape(1, 4, 2)
    ids, real = torch.tensor([[5, 9, 7, 0]]), torch.tensor([[1, 1, 1, 0]])
    learnt = torch.tensor([[False, False, True, True]])

    def pooled(pooling: Pooling, image_token: int = 9) -> list[float]:
        return pool_states(states, ids, real, learnt, image_token, pooling)[0].tolist()

    found = {name: pooled(name) for name in get_args(Pooling)}
    assert found == {
        "mean": [2, 3],
        "last": [4, 5],
        "image": [2, 3],
        "text": [2, 3],
        "prompt": [0, 1],
        "answer": [4, 5],
    }
    assert pooled("text", 5) == [3, 4]
    assert np.isnan(pooled("image", 1)).all()


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 8))
def test_batches_hold_every_row_once_with_little_padding(lengths, size):
    batches = batches_of(lengths, size)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        own = [lengths[row] for row in batch]
        assert len(batch) <= size and own == sorted(own) and own[0] >= own[-1] * (1 - PADDING)


def test_too_many_bad_rows_stop_the_run_and_are_listed(tmp_path):
    rows = [{"id": str(n), "question": "Why?", "answer": "So." if n % 4 else " "} for n in range(160)]
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = EmbedConfig(part_size=32, batch_size=8)

    def run(max_bad):
        skips = Skips()
        pool = open_pool(tmp_path / "pool.jsonl", skips=skips)
        return embed(
            tmp_path / "out", config, backbone=tiny.backbone("compact"), pool=pool, skips=skips, max_bad=max_bad
        )

    with pytest.raises(StageError, match=r"more than 20\.0%: \d+ empty text.*faults\.jsonl"):
        run(share_of("20%"))
    assert "empty text" in (tmp_path / "out" / "logs" / "faults.jsonl").read_text()
    kept = sorted((tmp_path / "out").glob("shard-*.parquet"))
    assert kept
    times = [path.stat().st_mtime_ns for path in kept]
    assert run(share_of("0.3")).counts["used"] == 120
    assert [path.stat().st_mtime_ns for path in kept] == times


def test_faults_far_ahead_are_not_held_against_what_was_read(tmp_path):
    rows = [{"id": str(n), "question": "Why?", "answer": "So."} for n in range(1600)]
    (tmp_path / "pool.jsonl").write_text("\n".join([*map(json.dumps, rows), *["{ broken"] * 120]))
    skips = Skips()
    pool = open_pool(tmp_path / "pool.jsonl", skips=skips)
    config = EmbedConfig(part_size=32, batch_size=8)
    artifact = embed(tmp_path / "out", config, backbone=tiny.backbone("compact"), pool=pool, skips=skips, max_bad=0.1)
    assert artifact.counts == {"used": 1600, "skipped": {"broken JSON": 120}}
