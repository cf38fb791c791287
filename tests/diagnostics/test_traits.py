"""What a probe is given of words, lengths and sizes."""

import io

import numpy as np
import pytest
from PIL import Image

from embodied_midtrain.diagnostics.traits import Traits, lengths, sizes, traits_of, words
from embodied_midtrain.gap.probe import cross_validated
from embodied_midtrain.samples import BadSample, Picture, Sample, Turn

RNG = np.random.default_rng(0)
WORDS = ("red", "block", "cup", "left", "near", "table", "the")


def said(count: int) -> str:
    return " ".join(RNG.choice(WORDS, count).tolist())


def told(of, pool: list[Traits], target: list[Traits]) -> float:
    return cross_validated(of(pool), of(target), episodes=np.arange(len(target)).astype(str)).accuracy


def test_each_tells_what_it_is_about() -> None:
    plain = [Traits(said(8), ((64, 64),)) for _ in range(200)]
    asked = [Traits(f"please {said(7)}", ((64, 64),)) for _ in range(100)]
    longer = [Traits(said(30), ((64, 64),)) for _ in range(100)]
    wide = [Traits(said(8), ((int(RNG.integers(65, 200)), 64),)) for _ in range(100)]
    alike = [Traits(said(8), ((64, 64),)) for _ in range(100)]
    assert told(words, plain, asked) > 0.97 and told(sizes, plain, asked) == 0.5
    assert told(lengths, plain, longer) > 0.97
    assert told(sizes, plain, wide) > 0.97 and told(words, plain, wide) < 0.62
    assert max(told(of, plain, alike) for of in (words, lengths, sizes)) < 0.62


def test_traits_come_from_the_headers() -> None:
    data = io.BytesIO()
    Image.new("RGB", (30, 20)).save(data, "PNG")
    turns = (Turn("user", "What?"), Turn("assistant", "This."))
    # What follows the header is cut off: nothing is decoded.
    sample = Sample("s", "1", (Picture(data.getvalue()[:-20]),), turns)
    assert traits_of(sample) == Traits("What?\nThis.", ((30, 20),))
    with pytest.raises(BadSample, match="broken image"):
        traits_of(Sample("s", "1", (Picture(b"no image"),), turns))
