"""Printed papers and handwritten digits: what is asked can be answered from what is printed."""

import random
import re
from pathlib import Path

import pytest

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.sources.registry import papers
from embodied_midtrain.sources.registry.digits import Digits
from embodied_midtrain.sources.registry.papers import Papers


@pytest.mark.parametrize("make", papers._KINDS)
def test_answers_stand_on_the_paper(make: object) -> None:
    for seed in range(40):
        paper = make(random.Random(seed))  # type: ignore[operator]
        printed = "\n".join(f"{left} {right}" for left, right in paper.lines).lower()
        for asked, answered in paper.asked:
            if "aloud" in asked:
                assert re.sub(r"\s+", " ", printed).strip() == answered.lower()
                continue
            for word in re.findall(r"[\w@.:]*\w", answered.lower().replace("'s", "")):
                if word in ("yes", "no", "in", "at", "on") or "How many" in asked:
                    continue
                assert word in printed, (asked, answered)


def test_sums_and_counts_are_right() -> None:
    for seed in range(40):
        paper = papers.receipt(random.Random(seed))
        prices = {left: float(right) for left, right in paper.lines if right and left != "TOTAL"}
        answers = dict(paper.asked)
        assert float(answers["What is the total on this receipt?"]) == pytest.approx(sum(prices.values()))
        assert int(answers["How many articles were bought?"]) == len(prices)
        assert prices[answers["What is the most expensive article?"].rstrip(".")] == max(prices.values())


def test_a_timetable_runs_forward() -> None:
    for seed in range(40):
        times = [right for _, right in papers.timetable(random.Random(seed)).lines if right]
        assert times == sorted(times)
        assert all(re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", time) for time in times)


@pytest.mark.parametrize("source", [Papers(), Digits()])
def test_equal_seeds_give_equal_samples(source: Papers | Digits, tmp_path: Path) -> None:
    first = list(source.samples(tmp_path, 7, 0, Skips()))
    assert list(source.samples(tmp_path, 7, 0, Skips())) == first
    assert len({sample.id for sample in first}) == 7
    assert all(max(sample.pictures[0].decode().size) <= 336 for sample in first)
    assert list(source.samples(tmp_path, 7, 1, Skips())) != first


def test_digits_are_those_of_the_data(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    target = load_digits().target
    seen = set()
    for sample in Digits().samples(tmp_path, 200, 0, Skips()):
        digits = [int(target[int(row)]) for row in sample.origin.split("rows ")[1].split(", ")]
        asked, answered = sample.turns[0].text, sample.answer
        truth = {
            "Read": "".join(map(str, digits)),
            "Which digits": "".join(map(str, digits)),
            "How many": str(len(digits)),
            "Count": str(len(digits)),
            "Which digit comes first": str(digits[0]),
            "What is the leftmost": str(digits[0]),
            "Which digit comes last": str(digits[-1]),
            "What is the rightmost": str(digits[-1]),
            "What is the largest": str(max(digits)),
        }
        if found := re.match(r"How often does the digit (\d)", asked):
            assert int(answered) == digits.count(int(found[1]))
        elif len(digits) == 1:
            assert str(digits[0]) in answered
        else:
            start = next(start for start in truth if asked.startswith(start))
            assert answered == truth[start]
            seen.add(start)
    assert len(seen) == 9
