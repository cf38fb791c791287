"""Plan, Egocentric and Temporal: every answer found again by other means, on a world without a simulator."""

from collections import Counter

import numpy as np
import pytest

from embodied_midtrain.capabilities import egocentric, plan, temporal
from embodied_midtrain.capabilities.domains import DOMAINS
from embodied_midtrain.capabilities.posing import Ledger, from_traces
from embodied_midtrain.coupled.questions import CATEGORY
from tests.coupled.made import several, without
from tools.capability_answers import CHECKED, spoilt, wrong


@pytest.fixture(scope="module")
def traces():
    return {trace.id: trace for trace in several(10)}


@pytest.mark.parametrize("domain", ["plan", "egocentric", "temporal"])
def test_every_answer_is_found_again(domain, traces):
    ledger = Ledger()
    samples = list(from_traces(list(traces.values()), 0, len(traces), {domain: 600}, 3, ledger))
    assert len(samples) == len(ledger.rows) == ledger.samples[domain] >= 400
    assert len({sample.id for sample in samples}) == len(samples)
    kinds = Counter(row["kind"] for row in ledger.rows)
    assert set(kinds) == set(DOMAINS[domain].kinds), kinds
    own = [row for row in ledger.rows if row["kind"] in CHECKED]
    assert {row["kind"] for row in ledger.rows} - CHECKED <= CATEGORY.keys(), "the others are asked by coupled"
    faults = [(row["id"], row["question"], wrong(row, traces[row["episode"]])) for row in own]
    assert not [fault for fault in faults if fault[2]]
    unnoticed = [row["id"] for row in own if not wrong(spoilt(row, traces[row["episode"]]), traces[row["episode"]])]
    assert not unnoticed, "the second opinion tells wrong answers from right ones"


def test_answers_come_out_even(traces):
    ledger = Ledger()
    wanted = {"plan": 200, "egocentric": 200, "temporal": 200}
    list(from_traces(list(traces.values()), 0, len(traces), wanted, 3, ledger))
    for kind, most in (("done", 0.6), ("in-reach", 0.6), ("first-of-two", 0.6), ("opening", 0.6), ("held", 0.6)):
        answers = Counter(row["answer"] for row in ledger.rows if row["kind"] == kind)
        assert max(answers.values()) <= most * answers.total(), (kind, answers)


def test_what_a_trace_does_not_say_is_not_asked(traces):
    trace = next(iter(traces.values()))
    bare = [
        without(trace, place=None),
        without(trace, things=None, seen=None),
        without(trace, held=None, touched=None, opening=None),
        without(trace, cameras=None, forward=None),
    ]
    for known in bare:
        ledger = Ledger()
        wanted = {"plan": 40, "egocentric": 40, "temporal": 40}
        list(from_traces([known], 0, 1, wanted, 0, ledger))
        asked = {row["kind"] for row in ledger.rows}
        reasons = {kind for counts in ledger.left.values() for kind, _ in counts}
        missing = {*plan.KINDS, *egocentric.KINDS, *temporal.KINDS} - asked
        never_here = {"cause", "moved-in", "released-in", "grasped-in", "earlier", "before"}
        assert missing - never_here <= reasons, missing - reasons


def test_several_pictures_are_those_of_their_looks(traces):
    ledger = Ledger()
    samples = list(from_traces(list(traces.values()), 0, len(traces), {"temporal": 60}, 0, ledger))
    for sample, row in zip(samples, ledger.rows, strict=True):
        frames = traces[row["episode"]].view("agent").frames
        assert len(sample.pictures) == len(row["looks"]) in (2, 3, 4)
        for picture, look in zip(sample.pictures, row["looks"], strict=True):
            shown = np.asarray(picture.decode()).astype(int)
            others = [np.abs(shown - frames[other]).mean() for other in range(len(frames))]
            assert others[look] <= min(others) + 0.5
