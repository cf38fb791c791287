"""A pool that grew: only what is new is computed, and the result is that of a whole run, byte for byte."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from embodied_midtrain.artifacts import Artifact, Skips, StageError, open_stage
from embodied_midtrain.cli import main
from embodied_midtrain.features import extract
from embodied_midtrain.features.extract import embed
from embodied_midtrain.features.extractor import EmbedConfig
from embodied_midtrain.sources.opening import POOL_STAGE, open_pool
from embodied_midtrain.sources.table import write_table
from tests import tiny
from tests.features.test_extract import Samples

CONFIG = EmbedConfig(part_size=4, batch_size=3, precision="fp32")


def source(folder: Path, name: str, count: int) -> None:
    rows = [{"id": str(n), "question": "Why?", "answer": f"{name} so " * (1 + n % 5)} for n in range(count)]
    lines = [*map(json.dumps, rows), "{ broken"]
    (folder / f"{name}.jsonl").write_text("\n".join(lines))


def pool_file(folder: Path, *names: str) -> Path:
    path = folder / f"{'-'.join(names)}.yaml"
    path.write_text("sources:\n" + "".join(f"  - {{path: {name}.jsonl}}\n" for name in names))
    return path


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of the windows that were computed."""
    seen: list[int] = []
    run = extract.run_windows

    def counting(backbone, config, engine, windows):
        for window, embedded in run(backbone, config, engine, windows):
            seen.append(len(window.items))
            yield window, embedded

    monkeypatch.setattr(extract, "run_windows", counting)
    return seen


def run(out: Path, path: Path, **options: object) -> Artifact:
    skips = Skips()
    pool = open_pool(path, skips=skips)
    config = options.pop("config", CONFIG)
    return embed(out, config, backbone=tiny.backbone("compact"), pool=pool, skips=skips, max_bad=1.0, **options)


def test_only_the_new_source_is_computed(tmp_path: Path, computed: list[int]) -> None:
    for name, count in (("a", 10), ("b", 6), ("c", 7)):
        source(tmp_path, name, count)
    old = run(tmp_path / "old", pool_file(tmp_path, "a", "b"))
    assert sum(computed) == 16
    whole = run(tmp_path / "whole", pool_file(tmp_path, "c", "a", "b"))
    computed.clear()
    grown = run(tmp_path / "grown", pool_file(tmp_path, "c", "a", "b"), extend=old.path)
    assert sum(computed) == 7
    assert grown.manifest == whole.manifest and grown.counts == {"used": 23, "skipped": {"broken JSON": 3}}


def test_a_source_that_changed_is_computed_and_one_that_left_is_left_out(
    tmp_path: Path, computed: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    for name, count in (("a", 10), ("b", 6), ("c", 7)):
        source(tmp_path, name, count)
    old = run(tmp_path / "old", pool_file(tmp_path, "a", "b", "c"))
    source(tmp_path, "b", 9)
    computed.clear()
    grown = run(tmp_path / "grown", pool_file(tmp_path, "a", "b"), extend=old.path)
    assert sum(computed) == 9 and grown.counts["used"] == 19
    assert "taken over: a; changed: b; not in the pool: c" in capfd.readouterr().err
    assert grown.manifest == run(tmp_path / "whole", pool_file(tmp_path, "a", "b")).manifest


def test_a_pool_artifact_is_extended_by_its_tables(tmp_path: Path, computed: list[int]) -> None:
    def build(out: Path, counts: dict[str, int]) -> Path:
        with open_stage(out, POOL_STAGE, counts, {}) as stage:
            for name, count in counts.items():
                rows = [replace(sample, source=name) for sample in Samples(count)]
                write_table(stage.file(f"{name}.parquet"), rows)
            stage.finish({"used": sum(counts.values())})
        return out

    old = run(tmp_path / "old", build(tmp_path / "pool", {"b": 5}))
    computed.clear()
    pool = build(tmp_path / "more", {"a": 6, "b": 5})
    grown = run(tmp_path / "grown", pool, extend=old.path)
    assert sum(computed) == 6
    assert grown.manifest == run(tmp_path / "whole", pool).manifest


def test_stores_of_another_kind_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source(tmp_path, "a", 5)
    path = pool_file(tmp_path, "a")
    old = run(tmp_path / "old", path)
    with pytest.raises(StageError, match="cannot be extended:\n  config pooling: 'mean' there, 'last' now"):
        run(tmp_path / "x", path, config=replace(CONFIG, pooling="last"), extend=old.path)
    with pytest.raises(StageError, match="inputs backbone: "):
        embed(
            tmp_path / "y",
            CONFIG,
            backbone=tiny.backbone("smolvlm"),
            pool=open_pool(path, skips=Skips()),
            extend=old.path,
        )
    with pytest.raises(StageError, match=r"inputs pool: .*\n  inputs target: "):
        embed(tmp_path / "z", CONFIG, backbone=tiny.backbone("compact"), target=tiny.Dots(), extend=old.path)
    shard = old.file("shard-0000-000000.parquet")
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    with pytest.raises(StageError, match=r"shard-0000-000000\.parquet is missing or not as it was written"):
        run(tmp_path / "w", path, extend=old.path)
    source(tmp_path, "b", 5)
    words = ["embed", "--pool", str(pool_file(tmp_path, "a", "b")), "--out", str(old.path), "--part-size", "4"]
    words += ["--batch-size", "3", "--precision", "fp32", "--backbone", str(tiny.folder("compact"))]
    assert main(words) == 1
    told = capsys.readouterr().err
    assert "inputs pool" in told and f"--extend {old.path}" in told
