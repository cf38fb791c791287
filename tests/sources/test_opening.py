"""Pools by their path."""

import json
from pathlib import Path

import pytest

from embodied_midtrain.artifacts import Skips, StageError, open_stage
from embodied_midtrain.samples import Sample, Turn
from embodied_midtrain.sources.opening import POOL_STAGE, open_pool, read_samples
from embodied_midtrain.sources.table import write_table


def sample(source: str, id: str, answer: str = "yes") -> Sample:
    return Sample(source, id, (), (Turn("user", "Is it?"), Turn("assistant", answer)))


def build(out: Path, *samples: Sample) -> Path:
    with open_stage(out, POOL_STAGE, {"seed": 0}, {}) as run:
        for source in sorted({s.source for s in samples}):
            rows = [s for s in samples if s.source == source]
            writers = {f"samples/{source}.parquet": lambda path, rows=rows: (write_table(path, rows), None)[1]}
            run.commit_part(source, {}, writers)
        run.finish({"used": len(samples)})
    return out


def test_an_artifact_is_read_in_a_fixed_order(tmp_path: Path) -> None:
    rows = [sample("b", "1"), sample("a", "2"), sample("a", "1")]
    pool = open_pool(build(tmp_path / "pool", *rows), skips=Skips())
    assert [s.key for s in pool] == [("a", "2"), ("a", "1"), ("b", "1")]
    assert list(pool) == list(pool)
    assert pool.name == "pool"


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    prints = [
        open_pool(build(tmp_path / name, sample("a", "1", answer)), skips=Skips()).fingerprint()
        for name, answer in (("one", "yes"), ("same", "yes"), ("other", "no"))
    ]
    assert prints[0] == prints[1] != prints[2]


def test_an_unfinished_or_foreign_folder_is_refused(tmp_path: Path) -> None:
    with open_stage(tmp_path / "half", POOL_STAGE, {}, {}):
        pass
    with pytest.raises(StageError, match="not finished"):
        open_pool(tmp_path / "half", skips=Skips())
    with open_stage(tmp_path / "other", "embed", {}, {}) as run:
        run.finish()
    with pytest.raises(StageError, match="emt embed"):
        open_pool(tmp_path / "other", skips=Skips())
    (tmp_path / "plain").mkdir()
    with pytest.raises(StageError, match="nothing at"):
        open_pool(tmp_path / "plain", skips=Skips())


def test_chosen_samples_come_in_the_order_of_the_keys(tmp_path: Path) -> None:
    rows = [sample("a", str(i)) for i in range(5)] + [sample("b", "0")]
    pool = build(tmp_path / "pool", *rows)
    keys = [("a", "3"), ("b", "0"), ("a", "0"), ("a", "3")]
    assert [s.key for s in read_samples(pool, keys)] == keys
    with pytest.raises(StageError, match="the selection was made from"):
        list(read_samples(pool, [("a", "99")]))


def test_chosen_samples_of_a_conversation_file(tmp_path: Path) -> None:
    records = [
        {"id": i, "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": str(i)}]}
        for i in range(4)
    ]
    path = tmp_path / "talk.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    assert [s.answer for s in read_samples(path, [("talk", "2"), ("talk", "0")])] == ["2", "0"]
    with pytest.raises(StageError, match="'7' of source 'talk'"):
        list(read_samples(path, [("talk", "7")]))
