"""Shards: written by webdataset itself, cut off, tampered with, read lazily, read from elsewhere."""

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.sources.opening import open_pool, read_samples


def picture(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def shard(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def img2dataset(*keys: str) -> list[tuple[str, bytes]]:
    members = []
    for key in keys:
        facts = {"key": key, "caption": f"a thing {key}", "status": "success", "url": "https://example.org/x"}
        members += [
            (f"{key}.png", picture()),
            (f"{key}.txt", facts["caption"].encode()),
            (f"{key}.json", json.dumps(facts).encode()),
        ]
    return members


def read(path: Path | str) -> tuple[list[Any], Skips]:
    skips = Skips()
    return list(open_pool(path, skips=skips)), skips


def reasons(skips: Skips) -> list[tuple[str, str]]:
    return [(row["reason"], row["where"]) for row in skips.rows]


def test_shards_as_img2dataset_writes_them(tmp_path: Path) -> None:
    shard(tmp_path / "cc" / "00000.tar", img2dataset("000000000", "000000001"))
    shard(tmp_path / "cc" / "00001.tar", img2dataset("000010000"))
    samples, skips = read(tmp_path / "cc")
    assert [s.key for s in samples] == [
        ("cc", "00000/000000000"),
        ("cc", "00000/000000001"),
        ("cc", "00001/000010000"),
    ]
    assert samples[0].answer == "a thing 000000000" and samples[0].turns[0].role == "user"
    assert samples[0].pictures[0].decode().size == (8, 6)
    assert not skips.rows
    only_one, _ = read(f"{tmp_path}/cc/{{00001..00001}}.tar")
    assert [s.id for s in only_one] == ["000010000"]


def test_shards_that_webdataset_itself_wrote(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    (tmp_path / "wds").mkdir()
    with webdataset.ShardWriter(f"{tmp_path}/wds/%03d.tar", maxcount=2, verbose=0) as writer:
        for n in range(5):
            writer.write(
                {"__key__": f"deep/er/{n:04d}", "jpg": Image.new("RGB", (5, 4)), "json": {"caption": f"number {n}"}}
            )
    samples, skips = read(tmp_path / "wds")
    theirs = list(webdataset.WebDataset([str(p) for p in sorted((tmp_path / "wds").glob("*.tar"))], shardshuffle=False))
    assert len(samples) == len(theirs) == 5 and not skips.rows
    for ours, other in zip(samples, theirs, strict=True):
        assert ours.id.endswith(other["__key__"])
        assert ours.pictures[0].read() == other["jpg"]
        assert ours.answer == json.loads(other["json"])["caption"]


def test_pictures_stay_where_they_are_until_they_are_read(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", img2dataset("0", "1"))
    first, second = read_samples(path, [("a", "1"), ("a", "0")])
    assert first.id == "1" and first.pictures[0].data is None
    assert first.pictures[0].read() == picture() == second.pictures[0].read()


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz"])
def test_compressed_shards(tmp_path: Path, suffix: str) -> None:
    plain = shard(tmp_path / "a.tar", img2dataset("0", "1"))
    packed = tmp_path / f"b{suffix}"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    samples, skips = read(packed)
    assert [(s.id, s.answer) for s in samples] == [("0", "a thing 0"), ("1", "a thing 1")] and not skips.rows
    assert samples[1].pictures[0].decode().size == (8, 6)
    packed.write_bytes(packed.read_bytes()[:-200])
    samples, skips = read(packed)
    assert len(samples) < 2 and {r for r, _ in reasons(skips)} == {"truncated tar"}


def test_shards_elsewhere(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    data = shard(tmp_path / "a.tar", img2dataset("0", "1")).read_bytes()
    with fsspec.open("memory://bucket/laion/00000.tar", "wb") as file:
        file.write(data)
    samples, skips = read("memory://bucket/laion/*.tar")
    assert [(s.source, s.id) for s in samples] == [("laion", "0"), ("laion", "1")] and not skips.rows
    assert samples[0].pictures[0].read() == picture()
    pool = open_pool("memory://bucket/laion/*.tar", skips=Skips())
    before = pool.fingerprint()
    with fsspec.open("memory://bucket/laion/00000.tar", "wb") as file:
        file.write(data + bytes(512))
    assert open_pool("memory://bucket/laion/*.tar", skips=Skips()).fingerprint() != before


@pytest.mark.parametrize("cut", [100, 700, 1536, 2000, 3600, 5000])
def test_a_shard_that_breaks_off_costs_the_rest_and_says_so(tmp_path: Path, cut: int) -> None:
    whole = shard(tmp_path / "a.tar", img2dataset("0", "1", "2")).read_bytes()
    path = tmp_path / "b.tar"
    path.write_bytes(whole[:cut])
    samples, skips = read(path)
    assert skips.rows and {reason for reason, _ in reasons(skips)} == {"truncated tar"}
    assert [s.id for s in samples] == ["0", "1", "2"][: len(samples)] and len(samples) < 3
    for sample in samples:
        assert sample.pictures[0].read() == picture() and sample.answer == f"a thing {sample.id}"


def test_garbage_within_a_shard_is_no_proper_end(tmp_path: Path) -> None:
    whole = bytearray(shard(tmp_path / "a.tar", img2dataset("0", "1", "2")).read_bytes())
    whole[512 * 6 : 512 * 7] = b"\xaa" * 512
    (tmp_path / "b.tar").write_bytes(bytes(whole))
    samples, skips = read(tmp_path / "b.tar")
    assert len(samples) < 3 and "truncated tar" in skips.counts()


def test_one_bad_shard_costs_only_itself(tmp_path: Path) -> None:
    shard(tmp_path / "p" / "0.tar", img2dataset("0"))
    (tmp_path / "p" / "1.tar").write_bytes(b"")
    (tmp_path / "p" / "2.tar").write_bytes(b"no archive at all" * 100)
    shard(tmp_path / "p" / "3.tar", img2dataset("0"))
    samples, skips = read(tmp_path / "p")
    assert [s.id for s in samples] == ["0/0", "3/0"]
    assert skips.counts() == {"truncated tar": 2}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("x.png", b""), ("x.txt", b"text")], "empty image"),
        ([("x.txt", b"text")], "missing image"),
        ([("x.png", picture())], "broken record"),
        ([("x.png", picture()), ("x.txt", b"  ")], "empty text"),
        ([("x.png", picture()), ("x.txt", b"\xff\xfe")], "broken text"),
        ([("x.png", picture()), ("x.json", b"{")], "broken JSON"),
        ([("x.png", picture()), ("x.json", b"[1]")], "broken record"),
        ([("x.png", picture()), ("x.json", b'{"caption": 3.5}'), ("x.jpg", picture())], "broken record"),
        ([("x.png", picture()), ("x.png", picture()), ("x.txt", b"text")], "duplicate member"),
        ([("../x.png", picture()), ("../x.txt", b"text")], "unsafe name"),
        ([("/etc/x.png", picture()), ("/etc/x.txt", b"text")], "unsafe name"),
        ([("good.png", picture()), ("good.txt", b"text")], "duplicate id"),
    ],
)
def test_a_bad_sample_costs_only_itself(tmp_path: Path, members: list[tuple[str, bytes]], reason: str) -> None:
    good = [("good.png", picture()), ("good.txt", b"fine")]
    between = [("mm.png", picture()), ("mm.txt", b"fine"), ("mm.cls", b"1")]
    after = [("zz.png", picture()), ("zz.txt", b"fine")]
    samples, skips = read(shard(tmp_path / "a.tar", [*good, *between, *members, *after]))
    assert [s.id for s in samples] == ["good", "mm", "zz"]
    assert [r for r, _ in reasons(skips)] == [reason]


def test_links_and_devices_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("x.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
        text = tarfile.TarInfo("x.txt")
        text.size = 4
        archive.addfile(text, io.BytesIO(b"text"))
    samples, skips = read(path)
    assert samples == [] and skips.counts() == {"not a file": 1}


def test_conversations_in_shards(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Red."}]
    members = [("x.png", picture()), ("x.json", json.dumps({"id": "else", "conversations": turns}).encode())]
    (sample,), skips = read(shard(tmp_path / "a.tar", members))
    assert (sample.id, sample.turns[0].text, sample.answer) == ("x", "What?", "Red.") and not skips.rows
