"""Where does it belong? Four coloured pads, one for each kind of thing; the instruction names a thing.

Animals go to the blue pad, vehicles to the yellow one, food to the green one, clothing to the white one: demonstrations
show that for two thirds of the words, and "held-out" wordings name the other third. Who knows what a word means finds
the pad of a thing that no demonstration named; who has only memorised finds it one time in four. Each kind is a task.

Pads keep their places, give or take a little. In `MetaWorldSortingShuffled` they are dealt out anew for every initial
state, so that a colour has to be found as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.benchmarks.metaworld import SPEC
from embodied_midtrain.benchmarks.metaworld_choice import HORIZON, ChoiceSimulation, Solid
from embodied_midtrain.benchmarks.protocol import Instructions, check_tasks

PADS = {"animal": "blue", "vehicle": "yellow", "food": "green", "clothing": "white"}
"""Kind of thing: colour of its pad."""
TAUGHT = {
    "animal": "dog cat horse cow sheep pig lion tiger zebra elephant monkey rabbit "
    "mouse bear wolf fox deer goat duck chicken eagle owl penguin shark",
    "vehicle": "car truck bus train bicycle motorcycle airplane helicopter boat ship submarine rocket "
    "tractor taxi van scooter tram ferry canoe yacht jeep ambulance limousine bulldozer",
    "food": "apple banana orange bread cheese rice pasta pizza burger sandwich soup salad "
    "cake cookie pie chocolate potato tomato carrot onion egg butter honey steak",
    "clothing": "shirt jacket coat sweater dress skirt jeans shorts socks shoes boots hat "
    "cap scarf gloves belt tie suit vest hoodie pajamas sandals slippers blouse",
}
UNSEEN = {
    "animal": "whale dolphin frog snake turtle spider bee ant butterfly camel giraffe kangaroo",
    "vehicle": "wagon sled glider jet minivan trolley carriage kayak locomotive raft sailboat skateboard",
    "food": "sausage bacon mushroom grape lemon peach cherry strawberry pancake noodle pudding yogurt",
    "clothing": "cardigan trousers leggings apron raincoat mittens sneakers bikini robe tuxedo jersey stockings",
}
WORDINGS = (
    "sort the {thing}",
    "put away the {thing}",
    "find the place for the {thing}",
    "show where the {thing} belongs",
)
"""The same for taught and unseen words: what is held out is the word."""
SLOTS = ((-0.2, 0.56), (-0.08, 0.74), (0.1, 0.74), (0.2, 0.56))
"""Where pads lie, metres, before they are moved a little."""
MOVED = 0.02
"""Pads lie up to this far from their slot, in x and in y, metres."""


class MetaWorldSorting:
    """The benchmark: see `protocol.Benchmark`."""

    name = "metaworld_sorting"
    shuffled = False
    tasks: tuple[str, ...] = tuple(PADS)
    spec = SPEC

    def horizon(self, task: str) -> int:
        return HORIZON

    def instructions(self, task: str) -> Instructions:
        check_tasks(self, [task])
        return Instructions(_worded(TAUGHT[task]), _worded(UNSEEN[task]))

    def make(self, task: str, size: int) -> SortingSimulation:
        check_tasks(self, [task])
        return SortingSimulation(task, size, self.shuffled)


class MetaWorldSortingShuffled(MetaWorldSorting):
    """The same with a new order of the pads in every initial state."""

    name = "metaworld_sorting_shuffled"
    shuffled = True


def _worded(words: str) -> tuple[str, ...]:
    """Each word with one wording, then each with the next one, through all of them."""
    things = words.split()
    return tuple(
        WORDINGS[(number + shift) % len(WORDINGS)].format(thing=thing)
        for shift in range(len(WORDINGS))
        for number, thing in enumerate(things)
    )


class SortingSimulation(ChoiceSimulation):
    """All four pads; an initial state is the same scene whatever is asked for."""

    def __init__(self, kind: str, size: int, shuffled: bool) -> None:
        super().__init__(size)
        # The one that is meant comes first.
        self._kinds = sorted(PADS, key=lambda other: other != kind)
        self._shuffled = shuffled

    def cast(self, rng: np.random.Generator) -> Sequence[Solid]:
        return tuple(Solid(PADS[kind], "pad") for kind in self._kinds)

    def places(self, rng: np.random.Generator) -> NDArray[np.float64]:
        slots = np.asarray(SLOTS) + rng.uniform(-MOVED, MOVED, (len(SLOTS), 2))
        order = rng.permutation(len(SLOTS)) if self._shuffled else np.arange(len(SLOTS))
        dealt = dict(zip(PADS, order.tolist(), strict=True))
        return np.stack([slots[dealt[kind]] for kind in self._kinds])
