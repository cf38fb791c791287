"""Labelled picture packages, from a cache that is filled here: what is read, what is left out, whose it is."""

import io
import struct
from pathlib import Path

import pytest
from PIL import Image
from resource_file import make_rcc

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.sources.registry import gcompris, openclipart, tuxpaint
from embodied_midtrain.sources.registry.package import keep
from embodied_midtrain.sources.registry.source import RegistrySource
from embodied_midtrain.sources.registry.split import owner

FIRST = ["apple", "bear", "cup", "door", "egg", "fox", "goat", "hat", "ink", "jug"]
WORDS = [*FIRST, "kite", "lamp", "moon", "nest", "owl", "pen", "quilt", "rose", "sun", "tree"]


def png(shade: int = 0, size: tuple[int, int] = (20, 12)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", size, (shade, 90, 200, 128)).save(buffer, "PNG")
    return buffer.getvalue()


def svg(title: str, *words: str) -> bytes:
    bag = "".join(f"<rdf:li>{word}</rdf:li>" for word in words)
    return f"<svg><metadata><dc:title>{title}</dc:title><rdf:Bag>{bag}</rdf:Bag></metadata><path/></svg>".encode()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    art = "usr/share/openclipart"
    drawings = {
        f"animals/{word}_artist_01": (svg(f"A nice {word}", "animal", word, "hash"), png(i))
        for i, word in enumerate(WORDS)
    }
    drawings["broken/torn_artist"] = (svg("Torn"), png()[:30])
    drawings["broken/tora_artist"] = (svg("Tora"), b"")
    drawings["computer/icons/flat-theme/x"] = (svg("X"), png())
    drawings |= {f"food/pie_{i}": (svg("Clipart by someone", "food"), png()) for i in range(3)}
    keep(
        tmp_path / "debian/openclipart-png",
        "openclipart-png",
        "1",
        ((f"{art}/png/{n}.png", p) for n, (_, p) in drawings.items()),
    )
    keep(
        tmp_path / "debian/openclipart-svg",
        "openclipart-svg",
        "1",
        ((f"{art}/svg/{n}.svg", s) for n, (s, _) in drawings.items()),
    )
    stamps = [
        (f"usr/share/tuxpaint/stamps/things/{w}{end}", c)
        for w in WORDS
        for end, c in ((".png", png()), (".txt", f"A {w}.\nde=Ein Ding\n".encode()))
    ]
    stamps += [
        ("usr/share/tuxpaint/stamps/things/mute.png", png()),
        ("usr/share/tuxpaint/stamps/things/blank.txt", b""),
        ("usr/share/tuxpaint/stamps/things/blank.png", png()),
    ]
    keep(tmp_path / "debian/tuxpaint-stamps-default", "tuxpaint-stamps-default", "2", stamps)
    photos = make_rcc(
        {f"resource/{w}3.webp": png() for w in WORDS} | {"resource/black.webp": png(), "resource/note.txt": b""}
    )
    keep(
        tmp_path / "debian/gcompris-qt-data", "gcompris-qt-data", "3", [("usr/share/gcompris-qt/rcc/erase.rcc", photos)]
    )
    return tmp_path


def test_clip_art_has_title_and_keywords_and_no_themes(cache: Path) -> None:
    found = {item.name: item for item in openclipart.items(cache)}
    bear = found["animals/bear_artist_01"]
    assert (bear.label, bear.words) == ("A nice bear", ("animal", "bear"))
    assert bear.read() == png(1)
    assert found["food/pie_1"].label == "pie"
    assert not any("theme" in name for name in found)


def test_stamps_without_words_are_left_out(cache: Path) -> None:
    found = {item.name: item.label for item in tuxpaint.items(cache)}
    assert found["things/cup"] == "A cup."
    assert set(found) == {f"things/{word}" for word in WORDS}


def test_photos_are_named_by_their_files(cache: Path) -> None:
    found = {item.name: item.label for item in gcompris.items(cache)}
    assert found["erase/lamp3.webp"] == "lamp"
    assert set(found.values()) == set(WORDS)


@pytest.mark.parametrize("source", [openclipart.OpenClipart(), tuxpaint.TuxPaint(), gcompris.GCompris()])
def test_only_what_the_pool_owns_enters_the_pool(cache: Path, source: RegistrySource) -> None:
    skips = Skips()
    samples = list(source.samples(cache, 100, 0, skips))
    assert samples
    assert all(owner(source.name, sample.id) == "pool" for sample in samples)
    assert all(
        sample.licence == source.licence and sample.origin and sample.source == source.name for sample in samples
    )
    items = {"openclipart": openclipart, "tuxpaint-stamps": tuxpaint, "gcompris": gcompris}[source.name].items(cache)
    owned = [item.name for item in items if owner(source.name, item.name) == "pool"]
    assert len(samples) + len(skips) == len(owned) < 2 * len(WORDS)


def test_broken_and_empty_pictures_are_counted_and_replaced(cache: Path) -> None:
    skips = Skips()
    owned = [i.name for i in openclipart.items(cache) if owner("openclipart", i.name) == "pool"]
    bad = {name for name in owned if name.startswith("broken/")}
    samples = list(openclipart.OpenClipart().samples(cache, len(owned) - len(bad), 0, skips))
    assert len(samples) == len(owned) - len(bad)
    assert set(skips.counts()) <= {"broken image", "empty image"}


def test_the_seed_decides_and_equal_seeds_agree(cache: Path) -> None:
    def draw(seed: int) -> list:
        return list(openclipart.OpenClipart().samples(cache, 5, seed, Skips()))

    assert draw(0) == draw(0)
    assert [s.id for s in draw(0)] != [s.id for s in draw(1)]
    assert struct.unpack(">H", draw(0)[0].pictures[0].read()[:2]) == (0xFFD8,)
