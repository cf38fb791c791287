"""The micro-batches of each step, for one process of a team: made ready from disk or from the pool."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.midtraining.costs import numbers
from embodied_midtrain.midtraining.mixture import Fetch, Mixture
from embodied_midtrain.samples import Sample
from embodied_midtrain.training.packing import micro_batches, shared
from embodied_midtrain.training.team import Team


@dataclass(frozen=True)
class MicroBatch:
    """What goes through the model at once.

    Attributes:
        share: of the step's learnt tokens; 0 for one that only keeps a process in step with the others.
    """

    batch: dict[str, Tensor]
    share: float
    lengths: list[int]
    learnt: int
    pixels: int
    names: str


class Rows:
    """The micro-batches of each step, from disk, or rendered from a stream of the pool in the order of the steps."""

    def __init__(
        self, mixture: Mixture, backbone: Backbone, fetch: Fetch, team: Team, *, micro_batch: int, window: int | None
    ) -> None:
        """
        Args:
            micro_batch: samples of a padded micro-batch.
            window: tokens of a packed one; None: they are padded.
        """
        self.mixture = mixture
        self.backbone = backbone
        self._fetch = fetch
        self._team = team
        self._micro_batch = micro_batch
        self._window = window
        self._stream: Iterator[Sample] | None = None
        self._next = -1

    def step(self, step: int) -> list[MicroBatch]:
        """This process's share of a step; equally many in every process."""
        index = self.mixture.steps[step]
        lengths = self.mixture.lengths[index].tolist()
        # Means over micro-batches would weigh a token by its micro-batch; shares of all learnt tokens do not.
        learnt = int(self.mixture.learnt[index].sum())
        plan = micro_batches(lengths, ranks=self._team.size, micro_batch=self._micro_batch, window=self._window)
        rows = self._rows(step)
        made = []
        for part in plan[self._team.rank]:
            if part:
                made.append(self._made([rows[n] for n in part], [int(index[n]) for n in part], learnt))
            else:
                spare = next(iter(rows))
                made.append(self._made([rows[spare]], [int(index[spare])], None))
        return made

    def _made(self, rows: Sequence[Rendered], keys: Sequence[int], learnt: int | None) -> MicroBatch:
        own = sum(sum(row.learnt[1:]) for row in rows)
        batch = self.backbone.collate(rows) if self._window is None else self.backbone.pack(rows)
        if learnt is None:
            return MicroBatch(batch, 0.0, [], 0, 0, "")
        pixels = sum(numbers(row) for row in rows)
        return MicroBatch(batch, own / learnt, [len(row) for row in rows], own, pixels, self._names(keys))

    def _rows(self, step: int) -> dict[int, Rendered]:
        """This process's samples, by their number in the step."""
        own = self._own(step)
        index = self.mixture.steps[step]
        if self.mixture.kept is not None:
            return {n: self.mixture.kept.row(self.mixture.places[index[n]]) for n in own}
        if self._stream is None or self._next != step:
            ahead = range(step, len(self.mixture.steps))
            self._stream = self._fetch(
                [self.mixture.keys[self.mixture.steps[s][n]] for s in ahead for n in self._own(s)]
            )
        self._next = step + 1
        return {n: self.backbone.render(next(self._stream)) for n in own}

    def _own(self, step: int) -> list[int]:
        lengths = self.mixture.lengths[self.mixture.steps[step]].tolist()
        return shared(lengths, self._team.size)[self._team.rank]

    def some(self, count: int) -> list[Rendered]:
        """The first rows of the mixture, to try something on."""
        count = min(count, len(self.mixture.keys))
        if self.mixture.kept is not None:
            return [self.mixture.kept.row(place) for place in self.mixture.places[:count]]
        return [self.backbone.render(sample) for sample in self._fetch(self.mixture.keys[:count])]

    def describe(self, step: int) -> str:
        """A step's samples by name."""
        return self._names(self.mixture.steps[step].tolist())

    def _names(self, keys: Sequence[int]) -> str:
        names = ["/".join(self.mixture.keys[n]) for n in keys]
        return f"samples {', '.join(names[:8])}" + (f" and {len(names) - 8} more" if len(names) > 8 else "")
