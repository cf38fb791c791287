"""Charts: every answer is checked against the table, from the words of the question alone."""

import io
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.sources.registry.chart_sources import InventedCharts, invented
from embodied_midtrain.sources.registry.charts import Data, ask, draw, kinds_for, number

TITLES = ("title", "this chart about")


def check(data: Data, kind: str, written: bool, asked: str, answered: str) -> str:
    """Which kind of question it is; asserts that the answer is true."""
    named = [name for name in data.series if f" for {name}" in asked]
    values = dict(zip(data.labels, data.series[named[0] if named else next(iter(data.series))], strict=True))
    assert named or len(data.series) == 1 or not re.search("value|highest|lowest|Read|exceed|greater|show", asked)
    if found := re.search("highest|largest|lowest|smallest", asked):
        best = max(values.values()) if found[0] in ("highest", "largest") else min(values.values())
        label = answered.removeprefix("It is ").rstrip(".")
        assert values[label] == best
        assert list(values.values()).count(best) == 1
        return "extreme"
    if found := re.match("(?:Is (.+) greater than|Does (.+) exceed) (.+?)(?: for .+)?[?]", asked):
        assert answered.startswith("Yes") == (values[found[1] or found[2]] > values[found[3]])
        return "compare"
    if any(words in asked for words in TITLES):
        assert answered == f"{data.title}."
        return "title"
    if "type of chart" in asked or "data drawn" in asked:
        assert kind.split()[-1] in answered.lower()
        return "kind"
    if asked.startswith("How many"):
        assert int(answered) == (len(data.series) if "series" in asked or "compared" in asked else len(data.labels))
        return "count"
    if asked.startswith(("List", "Turn")):
        assert all(f"{label} {number(value)}" in answered for label, value in values.items())
        return "describe"
    label = next(label for label in sorted(data.labels, key=len, reverse=True) if label in asked)
    told = float(re.sub("About |It is |[.]$", "", answered))
    assert told == values[label] if written else told == pytest.approx(values[label], rel=0.05)
    return "value"


def test_answers_follow_from_the_table() -> None:
    seen: Counter[str] = Counter()
    for seed in range(300):
        rng = random.Random(seed)
        data = invented(rng)
        kind = rng.choice(kinds_for(data))
        written = "bar" in kind and rng.random() < 0.5
        questions = ask(data, kind, rng, 3, written=written)
        assert len(set(questions)) == len(questions) > 1
        seen.update(check(data, kind, written, *question) for question in questions)
    assert set(seen) == {"extreme", "compare", "title", "kind", "count", "describe", "value"}


def test_ties_are_not_asked_about() -> None:
    data = Data("Level", "metres", ("a", "b", "c"), {"x": (5.0, 5.0, 5.0)})
    asked = [q for seed in range(60) for q, _ in ask(data, "bar", random.Random(seed), 5)]
    assert not any(re.search("highest|lowest|greater|exceed", q) for q in asked)


def test_a_table_with_zeros_or_two_series_is_no_pie() -> None:
    assert "pie" not in kinds_for(Data("t", "u", ("a", "b"), {"x": (0.0, 1.0)}))
    assert "pie" not in kinds_for(Data("t", "u", ("a", "b"), {"x": (2.0, 1.0), "y": (2.0, 1.0)}))


def test_bars_are_as_long_as_their_values() -> None:
    data = Data("t", "u", ("a", "b"), {"x": (10.0, 20.0)})
    image = np.asarray(draw(data, "bar", random.Random(0)), dtype=int)
    assert image.shape[1] <= 336
    # Columns of coloured pixels: the two bars have one colour, and the second is twice as high.
    colourful = (image.max(-1) - image.min(-1)) > 40
    heights = colourful.sum(0)
    heights = heights[heights > 10]
    assert heights.max() / np.median(heights[: len(heights) // 2]) == pytest.approx(2, rel=0.1)


def test_a_pool_is_the_same_again_and_a_larger_one_begins_with_it(tmp_path: Path) -> None:
    first = list(InventedCharts().samples(tmp_path, 5, 0, Skips()))
    assert len(first) == 5
    assert list(InventedCharts().samples(tmp_path, 8, 0, Skips()))[:5] == first
    assert list(InventedCharts().samples(tmp_path, 5, 1, Skips())) != first
    assert Image.open(io.BytesIO(first[0].pictures[0].read())).format == "PNG"
    assert first[0].pictures == first[1].pictures
