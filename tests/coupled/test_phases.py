"""Sub-actions of a known trajectory, with and without knowledge of things."""

import itertools

import numpy as np

from embodied_midtrain.coupled.phases import closings, hand_speed, phases
from embodied_midtrain.coupled.words import said
from tests.coupled import made


def kinds(found):
    return [phase.kind for phase in found]


def test_a_grasp_is_cut_at_its_events():
    trace = made.trace()
    found = phases(trace)
    assert kinds(found) == ["approach", "grasp", "carry", "release", "retreat"]
    # The hand stands still from step 20, where the fingers begin to close, to 26; they open from 52 to 58.
    starts = np.array([phase.start for phase in found])
    assert np.abs(starts - [0, 20, 26, 52, 58]).max() <= 2
    assert [phase.thing for phase in found][:3] == [0, 0, 0] and found[2].goal == 1
    assert found[0].start == 0 and found[-1].stop == len(trace.place)
    assert all(a.stop == b.start for a, b in itertools.pairwise(found))
    assert [said(trace, phase) for phase in found] == [
        "move the gripper to the red cube",
        "close the gripper on the red cube",
        "carry the red cube to the blue cube",
        "open the gripper to release the red cube",
        "move the gripper away",
    ]


def test_gripper_and_hand_alone_are_enough():
    trace = made.without(made.trace(), things=1, held=1, touched=1, cameras=1, seen=1)
    found = phases(trace)
    assert kinds(found) == ["approach", "grasp", "carry", "release", "retreat"]
    assert said(trace, found[1]) == "close the gripper on the object"


def test_closing_on_nothing_is_no_grasp():
    trace = made.trace()
    trace.held[:] = trace.touched[:] = -1
    assert set(kinds(phases(trace))) <= {"approach", "stay"}


def test_contact_without_a_grasp_is_work():
    trace = made.trace()
    trace.held[:] = -1
    trace.touched[:] = -1
    trace.touched[30:45] = 1
    trace.touched[35:38] = -1  # A short loss of contact does not end it.
    found = phases(trace)
    assert kinds(found)[:3] == ["approach", "work", "retreat"]
    assert (found[1].start, found[1].stop, found[1].thing) == (30, 45, 1)


def test_no_hand_no_phases():
    assert phases(made.without(made.trace(), place=1)) == ()


def test_a_gripper_that_hardly_moves_has_no_events():
    assert closings(np.linspace(0.5, 0.55, 50)) == []
    assert closings(np.array([0.0] * 20 + [1.0] * 20)) == [], "closed from the beginning is no closing"
    (span,) = closings(np.array([1.0] * 10 + [0.0] * 10 + [1.0] * 10))
    assert span == (9, 19)


def test_speed_is_metres_a_step():
    place = np.stack([np.arange(10) * 0.01, np.zeros(10), np.zeros(10)], 1)
    assert np.allclose(hand_speed(place)[2:-1], 0.01)
