"""The pool's build: what fails is skipped and named, what is done stays done, equal seeds give equal bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_sources
import pytest

from embodied_midtrain.artifacts import Artifact, ArtifactMismatch, DiskFull, Skips, StageError
from embodied_midtrain.sources.opening import open_pool
from embodied_midtrain.sources.registry import build
from embodied_midtrain.sources.registry.build import SOURCES, PoolConfig, build_pool
from embodied_midtrain.sources.registry.work import build_source, load

FAKES = {
    cls.name: f"fake_sources:{cls.__name__}"
    for cls in vars(fake_sources).values()
    if isinstance(cls, type) and issubclass(cls, fake_sources.Good)
}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def fakes(*names: str) -> dict[str, str]:
    return {name: FAKES[name] for name in names}


def test_what_fails_is_skipped_and_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    wanted = fakes("crashing", "failing", "unavailable", "good", "empty", "other")
    artifact = build_pool(tmp_path / "pool", PoolConfig(per_source=4), cache=tmp_path / "cache", sources=wanted)
    assert artifact.counts["used"] == 8
    assert artifact.counts["sources"] == {
        name: {"samples": 4, "group": "general", "licence": "CC0-1.0"} for name in ("good", "other")
    }
    reasons = artifact.counts["unavailable"]
    assert set(reasons) == {"crashing", "failing", "unavailable", "empty"}
    assert "not to be had" in reasons["unavailable"]
    assert "no such row" in reasons["failing"]
    assert "status -6" in reasons["crashing"]
    assert "no samples" in reasons["empty"]
    assert artifact.counts["skipped"] == {"broken image": 2, "source unavailable": 4}
    pool = open_pool(artifact.path, skips=Skips())
    assert [s.key for s in pool] == [(n, str(i)) for n in ("good", "other") for i in range(4)]
    assert next(iter(pool)).pictures[0].decode().size == (336, 17)
    again = build_pool(tmp_path / "pool", PoolConfig(per_source=4), cache=tmp_path / "cache", sources=wanted)
    assert again.fingerprint == artifact.fingerprint


def test_a_skipped_source_is_tried_again_on_request(tmp_path: Path) -> None:
    def again(overwrite: bool) -> Artifact:
        sources = fakes("good", "late")
        return build_pool(tmp_path / "pool", PoolConfig(2), cache=tmp_path, sources=sources, overwrite=overwrite)

    first = again(False)
    assert set(first.counts["unavailable"]) == {"late"}
    kept = first.file("samples/good.parquet").stat().st_mtime_ns
    (tmp_path / "go").touch()
    assert again(False).fingerprint == first.fingerprint
    second = again(True)
    assert second.counts["unavailable"] == {}
    assert set(second.counts["sources"]) == {"good", "late"}
    assert second.counts["skipped"] == {"broken image": 2}
    assert second.file("samples/good.parquet").stat().st_mtime_ns == kept


def test_equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    def build_one(name: str, seed: int) -> dict[str, str]:
        config = PoolConfig(per_source=5, seed=seed)
        files: dict[str, str] = build_pool(tmp_path / name, config, sources=fakes("good")).manifest["files"]
        return files

    first = build_one("a", 0)
    assert build_one("b", 0) == first
    assert build_one("c", 1) != first


def test_a_killed_build_goes_on_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    out, cache = tmp_path / "pool", tmp_path / "cache"
    cache.mkdir()
    call = (
        "from pathlib import Path; from embodied_midtrain.sources.registry.build import *;"
        f"build_pool(Path({str(out)!r}), PoolConfig(3), cache=Path({str(cache)!r}), sources={fakes('slow', 'good')!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", call])
    _wait_for(lambda: (out / "parts" / "good.json").exists() and (cache / "begun").exists())
    worker = int((cache / "begun").read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    _wait_for(lambda: not _alive(worker))
    kept = (out / "samples" / "good.parquet").stat().st_mtime_ns
    (cache / "go").touch()
    artifact = build_pool(out, PoolConfig(3), cache=cache, sources=fakes("slow", "good"))
    assert artifact.file("samples/good.parquet").stat().st_mtime_ns == kept
    whole = build_pool(tmp_path / "whole", PoolConfig(3), cache=cache, sources=fakes("slow", "good"))
    assert artifact.manifest == whole.manifest
    assert not list(out.glob(".tmp-*"))


def _wait_for(ready: object, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1][0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_no_source_at_all_is_an_error_that_gives_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"none of the sources could be had(.|\n)*its package is not to be had"):
        build_pool(tmp_path / "pool", PoolConfig(), sources=fakes("unavailable"))


def test_a_full_disk_stops_the_build_and_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "PROCESSES", 1)
    with pytest.raises(DiskFull, match="free some space"):
        build_pool(tmp_path / "pool", PoolConfig(2), sources=fakes("good", "full"))
    assert (tmp_path / "pool" / "samples" / "good.parquet").is_file()


def test_other_settings_are_refused_and_names_are_checked(tmp_path: Path) -> None:
    build_pool(tmp_path / "pool", PoolConfig(2, sources=("good",)), sources=fakes("good", "other"))
    with pytest.raises(ArtifactMismatch, match="seed"):
        build_pool(tmp_path / "pool", PoolConfig(2, seed=1, sources=("good",)), sources=fakes("good", "other"))
    with pytest.raises(StageError, match="did you mean 'openclipart'"):
        build_pool(tmp_path / "new", PoolConfig(sources=("chart-qa,openclipar",)))
    with pytest.raises(StageError, match="at least 1"):
        build_pool(tmp_path / "new", PoolConfig(per_source=0))


def test_records_that_break_the_rules_are_left_out_and_counted(tmp_path: Path) -> None:
    job = {"name": "messy", "spec": FAKES["messy"], "cache": str(tmp_path), "limit": 3, "seed": 0}
    done = build_source({**job, "table": str(tmp_path / "t.parquet")})
    assert done["facts"]["samples"] == 3
    reasons = [row["reason"] for row in done["skipped"]]
    assert {r: reasons.count(r) for r in set(reasons)} == {
        "broken image": 1,
        "duplicate id": 3,
        "wrong source": 3,
        "empty text": 3,
    }


def test_every_source_is_named_as_the_table_says() -> None:
    for name, spec in SOURCES.items():
        if not spec.startswith(".scenes_"):
            source = load(spec)
            assert source.name == name
            assert source.licence
            assert source.group in ("general", "embodied", "render", "screen", "document", "chart")


def test_the_process_of_a_source_ends_with_its_parent(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "embodied_midtrain.sources.registry.work"], stdin=subprocess.PIPE, env=os.environ
    )
    assert process.stdin is not None
    process.stdin.write(
        f'{{"name": "slow", "spec": "{FAKES["slow"]}", "cache": "{tmp_path}", "limit": 1, "seed": 0, '
        f'"table": "{tmp_path}/t", "result": "{tmp_path}/r"}}\n'.encode()
    )
    process.stdin.flush()
    _wait_for(lambda: (tmp_path / "begun").exists())
    process.stdin.close()
    assert process.wait(30) == 1
    assert not (tmp_path / "r").exists()
