import errno
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from embodied_midtrain.artifacts import (
    Artifact,
    ArtifactMismatch,
    DiskFull,
    Skips,
    StageError,
    atomic_path,
    open_stage,
    write_atomic,
)


@dataclass(frozen=True)
class Config:
    size: int = 3


def make(out: Path, size: int = 3, given: str = "a") -> Artifact:
    with open_stage(out, "demo", Config(size), {"pool": given}) as run:
        if run.done:
            return run.artifact()
        for number in range(size):
            if run.part(str(number)) is None:
                skips = Skips()
                skips.add("odd", str(number)) if number % 2 else None
                writers = {f"{number}.txt": lambda path, n=number: path.write_text(f"part {n}")}
                run.commit_part(str(number), {"n": number}, writers, skips)
        return run.finish({"used": size})


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and "logs" not in p.parts and p.name != ".lock"
    }


def test_a_finished_stage_does_nothing(tmp_path: Path) -> None:
    first = make(tmp_path / "out")
    before = (tmp_path / "out" / "0.txt").stat().st_mtime_ns
    assert make(tmp_path / "out").fingerprint == first.fingerprint
    assert (tmp_path / "out" / "0.txt").stat().st_mtime_ns == before
    assert first.counts == {"used": 3, "skipped": {"odd": 1}}
    assert "odd" in (tmp_path / "out" / "skipped.jsonl").read_text()


@pytest.mark.parametrize(
    ("size", "given", "named"), [(4, "a", "config size: 3 there, 4 now"), (3, "b", "inputs pool: 'a' there")]
)
def test_other_inputs_are_refused_by_name(tmp_path: Path, size: int, given: str, named: str) -> None:
    make(tmp_path / "out")
    with pytest.raises(ArtifactMismatch, match=named):
        make(tmp_path / "out", size, given)


@dataclass(frozen=True)
class Grown:
    """`Config` with a setting that it did not have when the folder was made."""

    size: int
    colour: str = "grey"


def test_a_new_setting_at_its_default_is_no_other_setting(tmp_path: Path) -> None:
    first = make(tmp_path / "out")
    with open_stage(tmp_path / "out", "demo", Grown(3), {"pool": "a"}) as run:
        assert run.done and run.artifact().fingerprint == first.fingerprint
    with pytest.raises(ArtifactMismatch, match="config colour: 'grey' there, 'red' now"):
        open_stage(tmp_path / "out", "demo", Grown(3, "red"), {"pool": "a"})


def test_overwrite_replaces(tmp_path: Path) -> None:
    make(tmp_path / "out", size=5)
    with open_stage(tmp_path / "out", "demo", Config(1), {"pool": "a"}, overwrite=True) as run:
        assert not run.done
        assert not (tmp_path / "out" / "0.txt").exists()


def test_fingerprint_follows_the_bytes(tmp_path: Path) -> None:
    first = make(tmp_path / "out")
    (tmp_path / "out" / "parts" / "0.json").unlink()
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(first.manifest["files"]["0.txt"], "0" * 64))
    assert Artifact.open(tmp_path / "out").fingerprint != first.fingerprint


def test_a_killed_stage_goes_on_and_ends_equal(tmp_path: Path) -> None:
    make(tmp_path / "whole", size=6)
    script = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from tests.test_artifacts import Config
        from embodied_midtrain.artifacts import Skips, open_stage
        out = Path({str(tmp_path / "cut")!r})
        run = open_stage(out, "demo", Config(6), {{"pool": "a"}})
        for number in range(3):
            skips = Skips()
            skips.add("odd", str(number)) if number % 2 else None
            writers = {{f"{{number}}.txt": lambda path, n=number: path.write_text(f"part {{n}}")}}
            run.commit_part(str(number), {{"n": number}}, writers, skips)
        (out / ".tmp-1-3.txt").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "cut" / "2.txt").exists()
    with pytest.raises(StageError, match="not finished"):
        Artifact.open(tmp_path / "cut")
    kept = (tmp_path / "cut" / "0.txt").stat().st_mtime_ns
    make(tmp_path / "cut", size=6)
    assert (tmp_path / "cut" / "0.txt").stat().st_mtime_ns == kept
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_a_part_whose_file_is_gone_is_made_again(tmp_path: Path) -> None:
    run = open_stage(tmp_path / "out", "demo", Config(), {})
    run.commit_part("0", {}, {"0.txt": lambda path: path.write_text("x")})
    (tmp_path / "out" / "0.txt").unlink()
    assert run.part("0") is None


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", "old")
    with pytest.raises(DiskFull, match="free some space"), atomic_path(tmp_path / "file") as path:
        path.write_text("half of the ne")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (tmp_path / "file").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_really_full_device(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with pytest.raises(DiskFull), atomic_path(tmp_path / "file") as path:
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")
        path.write_text("never")


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with open_stage(tmp_path / "out", "demo", Config(), {}), pytest.raises(StageError, match="another process"):
        open_stage(tmp_path / "out", "demo", Config(), {})


def test_foreign_folders_and_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(StageError, match="not of 'emt demo'"):
        open_stage(tmp_path / "mine", "demo", Config(), {})
    with pytest.raises(StageError, match="is a file"):
        open_stage(tmp_path / "mine" / "thesis.tex", "demo", Config(), {})


def test_open_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="not an artifact"):
        Artifact.open(tmp_path)
    make(tmp_path / "out")
    with pytest.raises(StageError, match="made by 'emt demo'"):
        Artifact.open(tmp_path / "out", "embed")
    (tmp_path / "out" / "manifest.json").write_text("{ broken")
    with pytest.raises(StageError, match="not readable JSON"):
        Artifact.open(tmp_path / "out")
    assert os.access(tmp_path, os.W_OK)
