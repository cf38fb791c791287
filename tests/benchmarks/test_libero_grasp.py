"""Grips on boxes made by hand: no simulator."""

import numpy as np
import pytest

from embodied_midtrain.benchmarks.libero_grasp import WIDEST, best_grip, narrowest
from embodied_midtrain.benchmarks.libero_scene import Boxes

X, Y = np.eye(3)[:2]
NOWHERE = np.array([0.0, 0.0, 0.2])
NOTHING = Boxes(np.zeros((0, 3)), np.zeros((0, 3, 3)), np.zeros((0, 3)))


def box(centre, half, yaw=0.0):
    turn = [[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]]
    return Boxes(np.array([centre], float), np.array([turn], float), np.array([half], float))


def together(*parts):
    return Boxes(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("centres", "turns", "halves")))


def ring(radius, height, pieces=24):
    """Walls of a bowl around the origin, and a floor."""
    angles = np.arange(pieces) * 2 * np.pi / pieces
    walls = [box((radius * np.cos(a), radius * np.sin(a), height / 2), (0.002, 0.012, height / 2), a) for a in angles]
    return together(*walls, box((0, 0, 0.002), (radius * 0.6, radius * 0.6, 0.002)))


@pytest.mark.parametrize("yaw", [0.0, 0.5, -1.0])
def test_a_block_is_taken_across_its_narrow_side(yaw):
    grip = best_grip(box((0.1, 0.2, 0.05), (0.02, 0.06, 0.05), yaw), NOTHING, Y, NOWHERE)
    assert abs(grip.axis @ [np.cos(yaw), np.sin(yaw), 0]) > 0.99
    assert np.allclose(grip.place[:2], [0.1, 0.2], atol=0.004) and 0.05 < grip.place[2] < 0.09


def test_a_bowl_is_taken_over_its_rim(radius=0.055):
    grip = best_grip(ring(radius, 0.05), NOTHING, Y, NOWHERE)
    outward = grip.place[:2] / np.linalg.norm(grip.place[:2])
    assert np.linalg.norm(grip.place[:2]) == pytest.approx(radius, abs=0.004)
    assert abs(grip.axis[:2] @ outward) > 0.99, "one finger inside, one outside"


def test_what_is_too_wide_and_has_no_rim_cannot_be_taken():
    slab = box((0, 0, 0.01), (WIDEST, WIDEST, 0.01))
    assert best_grip(slab, NOTHING, Y, NOWHERE) is None


def test_neighbours_decide_the_side_and_so_does_where_it_goes():
    cube = box((0, 0, 0.03), (0.02, 0.02, 0.03))
    wall_along_x = box((0, 0.05, 0.1), (0.2, 0.01, 0.1))
    assert abs(best_grip(cube, NOTHING, Y, NOWHERE).axis @ Y) > 0.95, "no turn without need"
    assert abs(best_grip(cube, wall_along_x, Y, NOWHERE).axis @ X) > 0.95
    far = np.array([0.5, 0.0, 0.0])
    wall_there = Boxes(wall_along_x.centres + far, wall_along_x.turns, wall_along_x.halves)
    assert abs(best_grip(cube, wall_there, Y, far).axis @ X) > 0.95


def test_a_grip_that_failed_is_not_tried_again_at_once():
    bowl = ring(0.055, 0.05)
    first = best_grip(bowl, NOTHING, Y, NOWHERE)
    second = best_grip(bowl, NOTHING, Y, NOWHERE, [first])
    assert np.linalg.norm(first.place - second.place) > 0.015


def test_the_narrowest_direction_of_points():
    axis, width = narrowest(box((0, 0, 0), (0.05, 0.01, 0.02), 0.4).points(5))
    assert abs(axis @ [-np.sin(0.4), np.cos(0.4), 0]) > 0.98 and width == pytest.approx(0.02, abs=0.008)


def test_points_boxes_and_heights():
    found = box((0, 0, 1), (0.1, 0.2, 0.3), np.pi / 2)
    assert (found.top, found.bottom) == (pytest.approx(1.3), pytest.approx(0.7))
    points = np.array([[0.15, 0, 1], [0, 0.15, 1], [0, 0, 1.305]])
    assert found.contain(points).tolist() == [True, False, False]
    assert found.contain(points, margin=0.01).tolist() == [True, False, True]
    assert len(found.near(np.zeros(3), 0.3).centres) == 0 and len(found.near(np.zeros(3), 0.7).centres) == 1
