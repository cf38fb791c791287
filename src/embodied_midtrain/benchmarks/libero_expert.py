"""A scripted expert for LIBERO: what a person would do with the gripper, from the simulator's own state.

It works off the task's goals in order (open, turn on, put, close) and tries one again that did not come about.
Everything is a generator of actions, one a step, that looks at the world anew before each.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.benchmarks.libero_grasp import Grip, best_grip
from embodied_midtrain.benchmarks.libero_scene import Boxes, Scene, Vector, axis_angle, turn_about

OPEN, CLOSED = -1.0, 1.0
Action = NDArray[np.float32]
METRES, RADIANS = 0.05, 0.5
"""What an action of 1 asks the controller for."""
GAIN = 1.6
"""The controller is a critically damped spring: asking for more than the way that is left is quicker, to a point."""
GRASPING, RELEASING = 9, 5
"""Steps: the fingers need eight from wide open to shut."""
CLEARANCE = 0.03
TIP = 0.016
"""How far the fingertips reach below the pads' middle."""
UP = np.array([0.0, 0.0, 1.0])
TILT = np.pi / 2
"""Of the hand towards a drawer's front: flat. From above, the handles are in each other's way."""
ORDER = ("open", "turnon", "on", "in", "turnoff", "close")


def expert_actions(scene: Scene) -> Iterator[Action]:
    """Actions [7] without end: towards the goals, then staying."""
    return _Expert(scene).act()


class _Expert:
    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.down = scene.hand().turn
        """The hand's orientation at the start: pointing down."""
        self.failed: dict[str, list[Grip]] = {}
        """Grips that did not hold, by thing: others are preferred."""
        self.twists = 0

    def act(self) -> Iterator[Action]:
        goals = sorted(self.scene.goals, key=lambda goal: ORDER.index(goal[0]) if goal[0] in ORDER else 0)
        while True:
            left = [goal for goal in goals if not self.scene.holds(goal)]
            if not left:
                yield self._towards(self.scene.hand().place, self.scene.hand().turn, OPEN)
                continue
            yield from self._achieve(left[0])

    def _achieve(self, goal: list[str]) -> Iterator[Action]:
        predicate, thing, *where = goal
        if predicate in ("on", "in"):
            if self.scene.drawer(where[0]) is not None and not self.scene.is_open(where[0]):
                yield from self._pull(where[0])
            yield from self._put(thing, where[0])
        elif predicate == "open":
            yield from self._pull(thing)
        elif predicate == "close":
            yield from self._push_shut(thing)
        elif predicate in ("turnon", "turnoff"):
            yield from self._twist(thing, 1.0 if predicate == "turnon" else -1.0)
        else:
            yield self._towards(self.scene.hand().place, self.scene.hand().turn, OPEN)

    # -- moving

    def _towards(self, place: Vector, turn: NDArray[np.float64], gripper: float, speed: float = 1.0) -> Action:
        hand = self.scene.hand()
        move = (place - hand.place) * GAIN / METRES
        rotate = axis_angle(turn @ hand.turn.T) * GAIN / RADIANS
        # Shortened, not clipped: the way stays straight.
        move *= speed / max(speed, np.abs(move).max())
        rotate *= 0.5 / max(0.5, np.abs(rotate).max())
        return np.array([*move, *rotate, gripper], np.float32)

    def _reach(
        self,
        place: Vector,
        turn: NDArray[np.float64],
        gripper: float,
        tolerance: float = 0.008,
        patience: int = 50,
        speed: float = 1.0,
    ) -> Iterator[Action]:
        for _ in range(patience):
            hand = self.scene.hand()
            if np.linalg.norm(place - hand.place) < tolerance and np.linalg.norm(axis_angle(turn @ hand.turn.T)) < 0.12:
                return
            yield self._towards(place, turn, gripper, speed)

    def _travel(
        self, place: Vector, turn: NDArray[np.float64], gripper: float, below: float, others: Boxes
    ) -> Iterator[Action]:
        """To `place` over whatever stands in the way; `below` is how far hand and load reach below the pads."""
        here = self.scene.hand().place
        needed = _top_between(here, place, others) + below + CLEARANCE
        height = max(needed, place[2])
        if here[2] < height - 0.02:
            yield from self._reach(np.array([here[0], here[1], height]), turn, gripper, tolerance=0.03)
        over = np.array([place[0], place[1], height])
        yield from self._reach(over, turn, gripper, tolerance=0.015 if height > place[2] else 0.008)

    def _facing(self, axis: Vector) -> NDArray[np.float64]:
        """Pointing down, fingers along `axis`, by the smaller turn."""
        fingers = self.down @ self.scene.fingers
        angle = float(np.arctan2(fingers[0] * axis[1] - fingers[1] * axis[0], fingers[:2] @ axis[:2]))
        angle = (angle + np.pi / 2) % np.pi - np.pi / 2
        return turn_about(np.array([0.0, 0.0, 1.0]), angle) @ self.down

    # -- putting things somewhere

    def _put(self, thing: str, where: str) -> Iterator[Action]:
        scene = self.scene
        stood = scene.boxes(thing).bottom
        others = scene.others(thing)
        failed = self.failed.setdefault(thing, [])
        grip = best_grip(scene.boxes(thing), others, self.down @ scene.fingers, failed)
        if grip is None:
            yield self._towards(scene.hand().place, self.down, OPEN)
            return
        turn = self._facing(grip.axis)
        above = _up(grip.place, 0.07)
        yield from self._travel(above, turn, OPEN, TIP, others)
        yield from self._reach(grip.place, turn, OPEN, speed=0.7)
        for _ in range(GRASPING):
            yield self._towards(grip.place, turn, CLOSED)
        yield from self._reach(_up(grip.place, 0.08), turn, CLOSED, tolerance=0.03)
        if scene.boxes(thing).bottom < stood + 0.02:
            failed.append(grip)
            yield from self._reach(_up(grip.place, 0.12), turn, OPEN, tolerance=0.03)
            return
        yield from self._set_down(thing, where, turn, others)

    def _set_down(self, thing: str, where: str, turn: NDArray[np.float64], others: Boxes) -> Iterator[Action]:
        scene = self.scene
        spot = scene.pose(where).place
        parent = where if scene.site(where) is None else scene.parent(where)
        for _ in range(2):
            load, hand = scene.boxes(thing), scene.hand()
            below = hand.place[2] - load.bottom
            offset = scene.pose(thing).place - hand.place
            target = np.array([*(spot - offset)[:2], self._height(thing, where, parent, spot, below)])
            yield from self._travel(_up(target, 0.02), turn, CLOSED, max(below, TIP), others)
        yield from self._reach(target, turn, CLOSED, tolerance=0.01, patience=25, speed=0.7)
        for _ in range(RELEASING):
            yield self._towards(target, turn, OPEN)
        yield from self._reach(_up(target, 0.1), turn, OPEN, tolerance=0.03)

    def _height(self, thing: str, where: str, parent: str | None, spot: Vector, below: float) -> float:
        """Of the pads when the thing is let go."""
        scene = self.scene
        if parent in scene.env.objects_dict or parent in scene.env.fixtures_dict:
            assert parent is not None
            boxes = scene.boxes(parent)
            if scene.site(where) is not None and "contain" in where:
                # Into something with walls: the load's foot below the rim, the palm above it.
                return max(boxes.top - 0.04 + below, boxes.top + 0.01)
            floor = scene.surface(spot, 0.02, boxes)
            return (floor if floor is not None else boxes.top) + below + 0.006
        return spot[2] + below + 0.006

    # -- drawers and knobs

    def _pull(self, name: str) -> Iterator[Action]:
        """Take a drawer's handle from the front and pull."""
        scene = self.scene
        joint, _ = scene.drawer(name) or ("", 0.0)
        outward, handle = scene.handle(name)
        turn = _pointing(-np.cos(TILT) * UP - np.sin(TILT) * outward, np.cross(UP, outward), self._fingers_first)
        approach = turn[:, 2]
        others = scene.others()
        start = handle - 0.09 * approach
        yield from self._travel(start, turn, OPEN, TIP + 0.03, others)
        yield from self._reach(start, turn, OPEN, tolerance=0.01)
        yield from self._reach(handle, turn, OPEN, tolerance=0.006, speed=0.5, patience=40)
        for _ in range(GRASPING):
            yield self._towards(handle, turn, CLOSED)
        begun = scene.joint(joint)[0]
        for _ in range(60):
            if scene.is_open(name) and abs(scene.joint(joint)[0] - begun) > 0.15:
                break
            hand = scene.hand().place
            yield self._towards(np.array([*(hand + 0.03 * outward)[:2], handle[2]]), turn, CLOSED)
        here = scene.hand().place
        for _ in range(RELEASING):
            yield self._towards(here, turn, OPEN)
        yield from self._reach(here - 0.08 * approach, turn, OPEN, tolerance=0.02)
        yield from self._reach(_up(scene.hand().place, 0.08), self.down, OPEN, tolerance=0.03)

    def _push_shut(self, name: str) -> Iterator[Action]:
        """Push a drawer's front with the closed fingers."""
        scene = self.scene
        outward, handle = scene.handle(name)
        turn = self._facing(np.cross(UP, outward))
        start = handle + 0.06 * outward
        yield from self._travel(_up(start, 0.04), turn, CLOSED, TIP, scene.others())
        yield from self._reach(start, turn, CLOSED, tolerance=0.015)
        for _ in range(60):
            if scene.holds(["close", name]):
                break
            hand = scene.hand().place
            yield self._towards(np.array([*(hand - 0.03 * outward)[:2], handle[2]]), turn, CLOSED)
        yield from self._reach(scene.hand().place + 0.05 * outward, turn, CLOSED, tolerance=0.02)
        yield from self._reach(_up(scene.hand().place, 0.1), self.down, OPEN, tolerance=0.03)

    def _twist(self, name: str, way: float) -> Iterator[Action]:
        """Push a knob's end round with the closed fingertips."""
        scene = self.scene
        _, axis, anchor, body = scene.joint(scene.env.get_object(name).joints[0])
        knob = scene.part(body)
        corners = knob.points()
        far = np.linalg.norm((corners - anchor)[:, :2], axis=1)
        ends = corners[far > 0.9 * far.max()]
        end = ends[0] if self.twists % 2 == 0 else 2 * anchor - ends[0]
        self.twists += 1
        arm = 0.8 * (end - anchor) * [1, 1, 0]
        push = np.cross(axis, arm) * way
        push /= np.linalg.norm(push)
        height = knob.top + 0.004
        turn = self._facing(arm / np.linalg.norm(arm))
        first = np.array([*(anchor + arm - 0.025 * push)[:2], height])
        yield from self._travel(_up(first, 0.06), turn, CLOSED, TIP, scene.others())
        yield from self._reach(first, turn, CLOSED, tolerance=0.01)
        for angle in np.linspace(0, 1.6, 32):
            spot = anchor + turn_about(axis, way * angle) @ (first - anchor)
            yield self._towards(np.array([*spot[:2], height]), turn, CLOSED)
        yield from self._reach(_up(scene.hand().place, 0.1), self.down, OPEN, tolerance=0.03)

    @property
    def _fingers_first(self) -> bool:
        """Whether the fingers open along the hand's first axis."""
        return bool(abs(self.scene.fingers[0]) > 0.5)


def _pointing(out: Vector, bar: Vector, fingers_first: bool) -> NDArray[np.float64]:
    """The hand's orientation that points along `out` with the fingers closing across `bar`."""
    across = np.cross(out, bar)
    first = across if fingers_first else bar
    return np.stack([first, np.cross(out, first), out], axis=1)


def _up(place: Vector, metres: float) -> Vector:
    return place + np.array([0.0, 0.0, metres])


def _top_between(start: Vector, end: Vector, boxes: Boxes, reach: float = 0.07) -> float:
    """The highest point of the boxes within `reach` of the straight way, seen from above."""
    points = boxes.points(5)
    way = (end - start)[:2]
    share = np.clip(((points[:, :2] - start[:2]) @ way) / max(float(way @ way), 1e-9), 0, 1)
    near = np.linalg.norm(points[:, :2] - start[:2] - share[:, None] * way, axis=1) < reach
    # Walls and shelves behind the table are no obstacles to go over.
    near &= points[:, 2] < start[2] + 0.6
    return float(points[near, 2].max()) if near.any() else -np.inf
