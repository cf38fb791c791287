"""A scripted expert for LIBERO: what a person would do with the gripper, from the simulator's own state.

It works off the task's goals in order (open, turn on, put, close) and tries one again that did not come about.
Everything is a generator of actions, one a step, that looks at the world anew before each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.benchmarks.libero_grasp import Grip, best_grip, narrowest
from embodied_midtrain.benchmarks.libero_scene import Boxes, Scene, Vector, axis_angle, turn_about

OPEN, CLOSED = -1.0, 1.0
Action = NDArray[np.float32]
METRES, RADIANS = 0.05, 0.5
"""What an action of 1 asks the controller for."""
GAIN = 1.6
"""The controller is a critically damped spring: asking for more than the way that is left is quicker, to a point."""
ANY = 7.0
"""More than any turn."""
GRASPING, RELEASING = 9, 5
"""Steps: the fingers need eight from wide open to shut."""
CLEARANCE = 0.03
TIP = 0.016
"""How far the fingertips reach below the pads' middle."""
PRESSING = 0.012
"""How far below a surface the fingertips are sent to press on it."""
BESIDE = 0.085
"""Between two things that share a place."""
REACH = (-0.02, 0.0, 0.3)
"""The part of a table where there is room to work: middle (x, y) and radius."""
UP = np.array([0.0, 0.0, 1.0])
TILT = np.pi / 2
"""Of the hand towards a drawer's front: flat. From above, the handles are in each other's way."""
SLANT = np.pi / 4
"""Of the hand that pushes a drawer shut, from pointing down."""
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
                yield from self._make_way(thing, where[0])
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
        rotate /= max(1.0, np.abs(rotate).max())
        return np.array([*move, *rotate, gripper], np.float32)

    def _reach(
        self,
        place: Vector,
        turn: NDArray[np.float64],
        gripper: float,
        tolerance: float = 0.008,
        patience: int = 50,
        speed: float = 1.0,
        turned: float = 0.12,
    ) -> Iterator[Action]:
        """Until place and orientation are as near as `tolerance` (metres) and `turned` (radians), or patience ends."""
        for _ in range(patience):
            hand = self.scene.hand()
            away, askew = np.linalg.norm(place - hand.place), np.linalg.norm(axis_angle(turn @ hand.turn.T))
            if away < tolerance and askew < turned:
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
            yield from self._reach(np.array([here[0], here[1], height]), turn, gripper, tolerance=0.03, turned=ANY)
        over = np.array([place[0], place[1], height])
        yield from self._reach(over, turn, gripper, tolerance=0.015, turned=0.3)

    def _facing(self, axis: Vector) -> NDArray[np.float64]:
        """Pointing down, fingers along `axis`, by the smaller turn."""
        fingers = self.down @ self.scene.fingers
        angle = float(np.arctan2(fingers[0] * axis[1] - fingers[1] * axis[0], fingers[:2] @ axis[:2]))
        angle = (angle + np.pi / 2) % np.pi - np.pi / 2
        return turn_about(np.array([0.0, 0.0, 1.0]), angle) @ self.down

    # -- putting things somewhere

    def _put(self, thing: str, where: str) -> Iterator[Action]:
        yield from self._carry(thing, partial(self._spot, thing, where), partial(self._height, where))

    def _carry(
        self, thing: str, spot: Callable[[], Vector], height: Callable[[Vector, float], float]
    ) -> Iterator[Action]:
        """Take a thing and set it down.

        Args:
            spot: where its own middle goes, in the plane.
            height: of the pads when it is let go, from that spot and how far it reaches below them.
        """
        scene = self.scene
        load, others = scene.boxes(thing), scene.others(thing)
        stood, place = load.bottom, scene.pose(thing).place
        failed = self.failed.setdefault(thing, [])
        shift = np.array([*(spot() - place)[:2], height(spot(), 0.0) - stood])
        grip = best_grip(load, others, self.down @ scene.fingers, shift, failed)
        if grip is None:
            yield from self._drag(thing, spot)
            return
        turn = self._facing(grip.axis)
        yield from self._travel(_up(grip.place, 0.07), turn, OPEN, TIP, others)
        yield from self._reach(grip.place, turn, OPEN, speed=0.7)
        for _ in range(GRASPING):
            yield self._towards(grip.place, turn, CLOSED)
        yield from self._reach(_up(grip.place, 0.08), turn, CLOSED, tolerance=0.03, turned=ANY)
        if scene.boxes(thing).bottom < stood + 0.02:
            failed.append(grip)
            yield from self._reach(_up(grip.place, 0.12), turn, OPEN, tolerance=0.03)
            return
        # Twice: what hangs in the fingers swings on the way.
        for _ in range(2):
            load, hand = scene.boxes(thing), scene.hand()
            below = hand.place[2] - load.bottom
            offset = scene.pose(thing).place - hand.place
            target = np.array([*(spot() - offset)[:2], height(spot(), below)])
            yield from self._travel(_up(target, 0.02), turn, CLOSED, max(below, TIP), others)
        yield from self._reach(target, turn, CLOSED, tolerance=0.01, patience=25, speed=0.7)
        for _ in range(RELEASING):
            yield self._towards(target, turn, OPEN)
        yield from self._reach(_up(target, 0.1), turn, OPEN, tolerance=0.03, turned=ANY)

    def _drag(self, thing: str, spot: Callable[[], Vector]) -> Iterator[Action]:
        """Press the closed fingers onto what cannot be taken hold of, and drag it along."""
        scene = self.scene
        load, place = scene.boxes(thing), scene.pose(thing).place
        floor = scene.surface(place, 0.01, load)
        onto = np.array([*place[:2], (floor if floor is not None else load.top) + TIP])
        yield from self._travel(_up(onto, 0.05), self.down, CLOSED, TIP, scene.others())
        yield from self._reach(onto, self.down, CLOSED, tolerance=0.008, speed=0.5)
        for _ in range(100):
            left = spot() - scene.pose(thing).place
            if np.linalg.norm(left[:2]) < 0.008:
                break
            aim = scene.hand().place + 0.03 * _level(left)
            yield self._towards(np.array([*aim[:2], onto[2] - PRESSING]), self.down, CLOSED)
        yield from self._reach(_up(scene.hand().place, 0.1), self.down, CLOSED, tolerance=0.03)

    def _spot(self, thing: str, where: str) -> Vector:
        """Where a thing goes: the place's middle, or side by side with others that go there too."""
        spot = self.scene.pose(where).place
        if self.scene.drawer(where) is not None:
            # An open drawer's free part ends at the handles of those above.
            spot = spot + 0.018 * self.scene.handle(where)[0]
        together = [goal[1] for goal in self.scene.goals if goal[0] == "on" and goal[2] == where]
        if len(together) > 1:
            spot[1] += BESIDE * (together.index(thing) - (len(together) - 1) / 2)
        return spot

    def _height(self, where: str, spot: Vector, below: float) -> float:
        scene = self.scene
        parent = where if scene.site(where) is None else scene.parent(where)
        if parent in scene.env.objects_dict or parent in scene.env.fixtures_dict:
            assert parent is not None
            boxes = scene.boxes(parent)
            if scene.site(where) is not None and "contain" in where:
                # Into something with walls: the load's foot below the rim, the palm above it.
                return max(boxes.top - 0.04 + below, boxes.top + 0.01)
            floor = scene.surface(spot, 0.02, boxes)
            return (floor if floor is not None else boxes.top) + below + 0.006
        return spot[2] + below + 0.006

    def _make_way(self, thing: str, drawer: str) -> Iterator[Action]:
        """Carry a thing from where the drawer, or the hand that works at it, would meet it."""
        scene = self.scene
        outward, handle = scene.handle(drawer)
        load, place = scene.boxes(thing), scene.pose(thing).place
        others = scene.others(thing).near(place, 0.6)
        low, high = load.points().min(0), load.points().max(0)
        corners = np.array(list(itertools.product(*zip(low, high, strict=True))))

        def in_the_way(spot: Vector) -> bool:
            ahead, aside = (spot - handle) @ outward, (spot - handle) @ np.cross(UP, outward)
            return bool(-0.2 < ahead < 0.24 and abs(aside) < 0.22)

        if not in_the_way(place):
            return
        for distance, angle in itertools.product(np.arange(0.1, 0.4, 0.04), np.arange(0, 2 * np.pi, np.pi / 8)):
            spot = place + distance * np.array([np.cos(angle), np.sin(angle), 0.0])
            crowded = others.contain(_up(corners + (spot - place), 0.045), margin=0.04).any()
            if not crowded and not in_the_way(spot) and np.linalg.norm(spot[:2] - REACH[:2]) < REACH[2]:
                break
        else:
            return
        floor = load.bottom
        yield from self._carry(thing, lambda: spot, lambda _, below: floor + below + 0.004)

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

    def _push_shut(self, name: str) -> Iterator[Action]:
        """Push a drawer's front with the closed fingers, aslant: the hand must pass table and other handles."""
        scene = self.scene
        outward, handle = scene.handle(name)
        bar = np.cross(UP, outward)
        turn = _pointing(-np.cos(SLANT) * UP - np.sin(SLANT) * outward, bar, not self._fingers_first)
        start = handle + 0.07 * outward
        yield from self._travel(_up(start, 0.05), turn, CLOSED, TIP, scene.others())
        yield from self._reach(start, turn, CLOSED, tolerance=0.015)
        for _ in range(60):
            if scene.holds(["close", name]):
                break
            hand = scene.hand().place
            yield self._towards(np.array([*(hand - 0.03 * outward)[:2], handle[2]]), turn, CLOSED)
        yield from self._reach(scene.hand().place + 0.05 * outward, turn, CLOSED, tolerance=0.02)
        yield from self._reach(_up(scene.hand().place, 0.1), self.down, OPEN, tolerance=0.03)

    def _twist(self, name: str, way: float) -> Iterator[Action]:
        """Take a knob's bar between the fingers and turn the hand."""
        scene = self.scene
        _, axis, anchor, body = scene.joint(scene.env.get_object(name).joints[0])
        knob = scene.part(body)
        points = knob.points(7)
        across, _ = narrowest(points[points[:, 2] > knob.top - 0.02])
        turn = turn_about(UP, np.pi * (self.twists % 2)) @ self._facing(across)
        self.twists += 1
        spot = np.array([*anchor[:2], knob.top - 0.008])
        yield from self._travel(_up(spot, 0.06), turn, OPEN, TIP, scene.others())
        yield from self._reach(spot, turn, OPEN, tolerance=0.008, speed=0.7)
        for _ in range(GRASPING):
            yield self._towards(spot, turn, CLOSED)
        for angle in np.linspace(0, 1.4, 40):
            if scene.holds(["turnon" if way > 0 else "turnoff", name]):
                break
            yield self._towards(spot, turn_about(axis, way * angle) @ turn, CLOSED)
        here = scene.hand()
        for _ in range(RELEASING):
            yield self._towards(here.place, here.turn, OPEN)
        yield from self._reach(_up(here.place, 0.1), here.turn, OPEN, tolerance=0.03)

    @property
    def _fingers_first(self) -> bool:
        """Whether the fingers open along the hand's first axis."""
        return bool(abs(self.scene.fingers[0]) > 0.5)


def _pointing(out: Vector, bar: Vector, fingers_first: bool) -> NDArray[np.float64]:
    """The hand's orientation that points along `out` with the fingers closing across `bar`."""
    across = np.cross(out, bar)
    first = across if fingers_first else bar
    return np.stack([first, np.cross(out, first), out], axis=1)


def _level(way: Vector) -> Vector:
    """Its direction, seen from above."""
    flat = way * [1, 1, 0]
    return flat / max(float(np.linalg.norm(flat)), 1e-9)


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
