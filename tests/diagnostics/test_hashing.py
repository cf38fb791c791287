"""Hashes that survive copying, and the join against comparing all pairs."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from embodied_midtrain.diagnostics import hashing
from embodied_midtrain.diagnostics.hashing import distances, near_copies, perceptual_hash


def scene(seed: int, side: int = 128) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (side, side), tuple(rng.integers(60, 200, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        x, y, size = rng.integers(0, side - 20, 3).tolist()
        draw.rectangle((x, y, x + size // 3 + 9, y + size // 4 + 9), fill=tuple(rng.integers(0, 255, 3).tolist()))
    return image


def copied(image: Image.Image, size: tuple[int, int], quality: int) -> Image.Image:
    data = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(data, "JPEG", quality=quality)
    return Image.open(data)


@pytest.mark.parametrize(("size", "quality"), [((128, 128), 40), ((96, 96), 60), ((320, 240), 75), ((300, 300), 90)])
def test_a_copy_is_near_and_others_are_not(size: tuple[int, int], quality: int) -> None:
    first = [perceptual_hash(scene(n)) for n in range(40)]
    second = [perceptual_hash(copied(scene(n), size, quality)) for n in range(40)]
    a, b = np.array(first, np.uint64), np.array(second, np.uint64)
    assert distances(a, b).max() <= 4
    here, there, _ = near_copies(b, a, 4)
    assert here.tolist() == there.tolist() == list(range(40))


def test_one_colour_has_no_hash() -> None:
    assert perceptual_hash(Image.new("RGB", (50, 50), "white")) is None


@pytest.mark.parametrize("most", [0, 2, 4, 7])
def test_the_join_is_that_of_all_pairs(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "PAIRS", 50)
    rng = np.random.default_rng(most)
    second = rng.integers(0, 2**63, 300, dtype=np.uint64)
    second[10] = second[200]
    first = rng.integers(0, 2**63, 400, dtype=np.uint64)
    first[:250] = second[rng.integers(0, 300, 250)]
    for row in range(250):
        for bit in rng.permutation(64)[: rng.integers(0, 9)].tolist():
            first[row] ^= np.uint64(1 << bit)
    table = np.array([[bin(int(a) ^ int(b)).count("1") for b in second] for a in first])
    wanted = np.flatnonzero(table.min(1) <= most)
    here, there, apart = near_copies(first, second, most)
    assert here.tolist() == wanted.tolist()
    assert apart.tolist() == table.min(1)[wanted].tolist()
    assert there.tolist() == table.argmin(1)[wanted].tolist()


def test_nothing_is_near_nothing() -> None:
    none = np.zeros(0, np.uint64)
    assert [len(x) for x in near_copies(none, np.ones(3, np.uint64), 4)] == [0, 0, 0]
    assert [len(x) for x in near_copies(np.ones(3, np.uint64), none, 4)] == [0, 0, 0]
