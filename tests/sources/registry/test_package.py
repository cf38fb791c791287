"""Packages are read in place: no member can leave its folder, whatever it is called."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.sources.registry.package import Package, keep, tar_members, zip_members

HOSTILE = ("../../outside.txt", "/tmp/absolute.txt", "a/../../../outside.txt", "..\\outside.txt")


def tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("./usr/share/x/b.txt", "./usr/share/x/a.txt", *HOSTILE):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
        link = tarfile.TarInfo("./link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
        through = tarfile.TarInfo("./link/passwd")
        through.size = 1
        archive.addfile(through, io.BytesIO(b"x"))
    return buffer.getvalue()


def zip_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("pkg/b.txt", "pkg/a.txt", *HOSTILE):
            archive.writestr(name, name)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_only_the_blob_and_its_index_are_written(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "deep" / "er" / "cache" / "thing"
    members = tar_members(io.BytesIO(tar_bytes())) if kind == "tar" else zip_members(io.BytesIO(zip_bytes()))
    package = keep(folder, "thing", "1.0", members)
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert written == ["deep/er/cache/thing/files.bin", "deep/er/cache/thing/package.json"]
    assert not Path("/tmp/absolute.txt").exists()
    assert package.read(HOSTILE[0]) == HOSTILE[0].encode()


def test_members_are_found_by_pattern_and_read_again_later(tmp_path: Path) -> None:
    keep(tmp_path / "thing", "thing", "1:2.0-3", tar_members(io.BytesIO(tar_bytes())))
    package = Package(tmp_path / "thing")
    assert package.names("*/x/*.txt") == ["usr/share/x/a.txt", "usr/share/x/b.txt"]
    assert package.read("usr/share/x/a.txt") == b"./usr/share/x/a.txt"
    assert "link" not in package
    assert package.origin("usr/share/x/a.txt") == "thing 1:2.0-3: usr/share/x/a.txt"


def test_a_damaged_archive_leaves_nothing_behind(tmp_path: Path) -> None:
    for members in (
        tar_members(io.BytesIO(tar_bytes()[:520])),
        tar_members(io.BytesIO(b"no tar" * 200)),
        zip_members(io.BytesIO(zip_bytes()[:-30])),
    ):
        with pytest.raises(StageError, match="damaged"):
            keep(tmp_path / "thing", "thing", "1.0", members)
    assert list(tmp_path.iterdir()) == []
