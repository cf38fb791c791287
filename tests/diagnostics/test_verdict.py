"""Every rule on figures that are made up."""

from dataclasses import replace

import pytest

from embodied_midtrain.diagnostics.verdict import Figures, Limits, judge

GOOD = Figures(
    full=1.0, text=1.0, image=0.99, size=1.0, length=0.9, other_prompt=0.98, sized=0.99, worded=0.95, blank=0.3,
    by_length=0.06, seeds=0.99, halves=0.99, leaks=0, notes=("degenerate",),
)  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "looks at the scene"),
        ({"leaks": 2}, "leaks"),
        ({"full": 0.6}, "pool and target look alike"),
        ({"sized": 0.4}, "partly a shortcut: image size"),
        ({"sized": 0.4, "image": 0.6, "text": 0.6}, "shortcut: image size"),
        ({"sized": None}, "partly a shortcut: image size"),
        ({"other_prompt": 0.2}, "partly a shortcut: text"),
        ({"worded": 0.2, "blank": 0.9}, "partly a shortcut: text"),
        ({"worded": 0.3, "blank": 0.1}, "partly a shortcut: text"),
        ({"image": 0.55}, "shortcut: text"),
        ({"image": 0.55, "text": 0.6}, "shortcut: something that is not in the picture"),
        ({"text": 0.6, "other_prompt": 0.1}, "looks at the scene"),
        ({"by_length": -0.7}, "partly a shortcut: text length"),
        ({"by_length": -0.7, "length": 0.7}, "looks at the scene"),
        ({"sized": 0.1, "other_prompt": 0.1}, "partly a shortcut: text, image size"),
        ({"seeds": 0.2}, "unstable"),
        ({"halves": 0.2}, "unstable"),
    ],
)
def test_the_words_follow_the_rules(changed: dict, words: str) -> None:
    assert judge(replace(GOOD, **changed), Limits()).words == words


def test_every_rule_has_a_sentence_with_its_figure() -> None:
    found = judge(GOOD, Limits())
    said = {finding.rule: finding.sentence for finding in found.findings}
    assert set(said) == {"leaks", "features", "image size", "text", "text length", "stability", "fit"}
    assert "100 %" in said["text"] and "0.98" in said["text"] and "0.95" in said["text"]
    assert "degenerate" in said["fit"]


def test_nothing_measured_is_nothing_said() -> None:
    assert judge(Figures(), Limits()).words == "cannot tell"
    assert judge(Figures(full=1.0, seeds=1.0), Limits()).words == "cannot tell"
    assert "nothing shows" in judge(Figures(full=1.0, text=1.0), Limits()).findings[1].sentence
