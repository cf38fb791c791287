"""Which one? Four solids of which the instruction names one by colour and form.

Each task is a solid ("red-cube"); the other three are drawn anew for every initial state, one of the same colour and
one of the same form among them, so that neither word alone is enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.benchmarks.metaworld import SPEC
from embodied_midtrain.benchmarks.metaworld_choice import HORIZON, SOLIDS, ChoiceSimulation, Form, Solid
from embodied_midtrain.benchmarks.protocol import Instructions, check_tasks
from embodied_midtrain.simulation.colours import COLOURS

FORMS: tuple[Form, ...] = ("cube", "ball", "cylinder")
X, Y = (-0.24, 0.24), (0.5, 0.82)
"""Where solids may stand: within the arm's reach and the picture, metres."""
APART = 0.15
"""Least distance between two solids, metres."""
TRAINING = (
    "touch the {colour} {form}",
    "move the gripper to the {colour} {form}",
    "go to the {colour} {form}",
    "put the hand on the {colour} {form}",
)
HELD_OUT = (
    "reach for the {form} that is {colour}",
    "bring your fingers down onto the {colour} coloured {form}",
    "we want the {form} with {colour} paint: get to it",
    "find the {colour} {form} and tap it from above",
)
_PAINTS = tuple(colour for colour in COLOURS if colour != "orange")
"""Orange is hard to tell from red and yellow under the table's lamp."""
_SOLIDS = {f"{colour}-{form}": Solid(colour, form) for colour in _PAINTS for form in FORMS}


class MetaWorldNamed:
    """The benchmark: see `protocol.Benchmark`."""

    name = "metaworld_named"
    tasks: tuple[str, ...] = tuple(_SOLIDS)
    spec = SPEC

    def horizon(self, task: str) -> int:
        return HORIZON

    def instructions(self, task: str) -> Instructions:
        check_tasks(self, [task])
        solid = _SOLIDS[task]
        training, held_out = (
            tuple(t.format(colour=solid.colour, form=solid.form) for t in texts) for texts in (TRAINING, HELD_OUT)
        )
        return Instructions(training, held_out)

    def make(self, task: str, size: int) -> NamedSimulation:
        check_tasks(self, [task])
        return NamedSimulation(_SOLIDS[task], size)


class NamedSimulation(ChoiceSimulation):
    """The named solid, one of its colour, one of its form, one of neither, anywhere on the table."""

    def __init__(self, named: Solid, size: int) -> None:
        super().__init__(size)
        self.named = named

    def cast(self, rng: np.random.Generator) -> Sequence[Solid]:
        colours = rng.permutation([c for c in _PAINTS if c != self.named.colour]).tolist()
        other, third = (FORMS[n] for n in rng.permutation(len(FORMS)) if FORMS[n] != self.named.form)
        named = self.named
        return (named, Solid(named.colour, other), Solid(colours[0], named.form), Solid(colours[1], third))

    def places(self, rng: np.random.Generator) -> NDArray[np.float64]:
        while True:
            places = rng.uniform((X[0], Y[0]), (X[1], Y[1]), (SOLIDS, 2))
            gaps = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.eye(SOLIDS)
            if gaps.min() >= APART:
                return places
