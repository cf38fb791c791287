import itertools
import math
from collections import Counter

import pytest
import xxhash

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.proximity.text import TextConfig, fit_text, ngrams, text_of
from embodied_midtrain.samples import Picture, Region, Sample, Turn

POOL = ["Describe the image.", "What is the value of the bar?", "Describe the image."]
TARGET = ["What action should the arm take to push the button", "what action should the arm take to open the drawer"]


def reference(text, buckets=50):
    """DSIR's log importance weight, in plain Python."""

    def grams(line):
        words = line.lower().replace(".", " .").replace("?", " ?").split()
        pairs = [f"{a} {b}" for a, b in itertools.pairwise(words)]
        return [xxhash.xxh64_intdigest(g.encode()) % buckets for g in words + pairs]

    def logs(lines):
        counts = Counter(g for line in lines for g in grams(line))
        total = sum(counts.values()) + buckets
        return [math.log((counts[n] + 1) / total) for n in range(buckets)]

    pool, target = logs(POOL), logs(TARGET)
    return sum(target[g] - pool[g] for g in grams(text))


def test_against_plain_python():
    model = fit_text(POOL, TARGET, TextConfig(buckets=50))
    for text in (*POOL, *TARGET, "something else altogether"):
        assert model.score(text) == pytest.approx(reference(text))
    assert model.score(TARGET[0]) > 0 > model.score(POOL[0])


def test_what_is_read():
    turns = (Turn("user", "Where is <region>?", (Region("point", (0.5, 0.5)),)), Turn("assistant", "There."))
    sample = Sample("s", "1", (Picture(data=b""),), turns)
    assert text_of(sample, TextConfig()) == "Where is ?"
    assert text_of(sample, TextConfig(answers=True)) == "Where is ?\nThere."


def test_nothing_to_compare():
    with pytest.raises(StageError, match="the target's texts hold no word"):
        fit_text(POOL, ["", " "], TextConfig())
    with pytest.raises(ValueError, match="smoothing"):
        fit_text(POOL, TARGET, TextConfig(smoothing=0))
    assert len(ngrams("", 10)) == 0
