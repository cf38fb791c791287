"""Several robot data sets as one target, an equal number of episodes of each (EmbodiedMidtrain, A.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import StageError, fingerprint_of
from embodied_midtrain.episodes import ActionSpec, Episode, Robots
from embodied_midtrain.robots.actions import ActionNormaliser


@dataclass(frozen=True)
class Looked:
    """What one pass over a data set has found: which episodes are taken, and the range of its actions."""

    chosen: NDArray[np.int64]
    normaliser: ActionNormaliser


class BalancedRobots:
    """A mixture of data sets: see `episodes.Robots`.

    An episode's task is its data set's name, so that whatever draws equally from tasks (the estimator) draws equally
    from data sets. Actions come in units of their own data set's range (1/99 quantiles): what 0.3 means differs from
    one robot to the next, and the mixture is never what a policy is trained on.
    """

    def __init__(
        self,
        parts: Mapping[str, Robots],
        *,
        episodes: int | None,
        seed: int,
        looked: dict[str, Looked] | None = None,
    ) -> None:
        """`episodes` of each are drawn with the seed, all where there are fewer; None: all.

        `looked` keeps what the pass over each data set has found; given to another mixture of the same data, episodes
        and seed, it spares that one the pass.
        """
        if not parts:
            raise ValueError("a mixture of robot data needs at least one data set")
        self.name = " + ".join(parts)
        self._parts, self._episodes, self._seed = dict(parts), episodes, seed
        widths = {part.spec.width for part in self._parts.values()}
        if len(widths) > 1:
            found = ", ".join(f"{name} {part.spec.width}" for name, part in self._parts.items())
            raise StageError(f"robot data of one target must have actions of one width; these have: {found} numbers.")
        self.spec = ActionSpec.unknown(widths.pop(), 0.0)
        self._looked = looked if looked is not None else {}

    def __iter__(self) -> Iterator[Episode]:
        for number, (name, part) in enumerate(self._parts.items()):
            known = self._look(number, name, part)
            wanted = set(known.chosen.tolist())
            for place, episode in enumerate(part):
                if place in wanted:
                    yield replace(episode, task=name, actions=known.normaliser.apply(episode.actions))
                if place >= known.chosen[-1]:
                    break

    def fingerprint(self) -> str:
        parts = {name: part.fingerprint() for name, part in self._parts.items()}
        return fingerprint_of({"parts": parts, "episodes": self._episodes, "seed": self._seed})

    def _look(self, number: int, name: str, part: Robots) -> Looked:
        """One pass over a data set, once however often the mixture is read."""
        if name not in self._looked:
            count = 0

            def actions() -> Iterator[NDArray[np.float32]]:
                nonlocal count
                for episode in part:
                    count += 1
                    yield episode.actions

            try:
                normaliser = ActionNormaliser.fit(actions())
            except ValueError as error:
                raise StageError(f"{name}: {error}") from error
            wanted = count if self._episodes is None else min(count, self._episodes)
            drawn = np.random.default_rng([self._seed, number]).choice(count, wanted, replace=False)
            self._looked[name] = Looked(np.sort(drawn), normaliser)
        return self._looked[name]
