"""A selection as what is trained on: usable samples, drawn to a budget, and what that made of each source."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Skips, StageError, StageRun
from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.midtraining.kept import FOLDER, KeptRows, writers
from embodied_midtrain.midtraining.weights import quotas, spread
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.samples import BadSample, Sample
from embodied_midtrain.training.order import bucketed, draws
from embodied_midtrain.training.team import ALONE, Team

Key = tuple[str, str]
Fetch = Callable[[Sequence[Key]], Iterator[Sample]]
"""Samples of the pool by key, in that order."""


@dataclass(frozen=True)
class Mixture:
    """What is trained on.

    Attributes:
        wanted: the selection's keys.
        keys: the usable samples among them.
        lengths: tokens of each usable sample.
        learnt: tokens of each that are trained on.
        steps: the samples of each step, as numbers of `keys` [steps, batch].
        kept: the rows of usable samples on disk, with the frozen vision tower's output; None: they are rendered anew.
        places: where `kept` has each of `keys`.
        weights: what the sources were weighted with; empty: the selection's own shares are the target.
    """

    wanted: Sequence[Key]
    keys: Sequence[Key]
    lengths: NDArray[np.int64]
    learnt: NDArray[np.int64]
    steps: NDArray[np.int64]
    kept: KeptRows | None
    places: Sequence[int]
    weights: Mapping[str, float]

    def composition(self) -> dict[str, dict[str, float | int]]:
        """By source: what was meant (target) and the share of the draws (realised), samples, draws, repeats."""
        selected = Counter(source for source, _ in self.wanted)
        usable = Counter(source for source, _ in self.keys)
        # By key: a composition may hold a sample several times.
        drawn = Counter(self.keys[place] for place in self.steps.ravel().tolist())
        draws_of, repeats_of = Counter[str](), Counter[str]()
        for (source, _), times in drawn.items():
            draws_of[source] += times
            repeats_of[source] += times - 1
        total = sum(self.weights.values())

        def target(source: str) -> float:
            return self.weights.get(source, 0.0) / total if self.weights else selected[source] / len(self.wanted)

        return {
            source: {
                "target": round(target(source), 6),
                "realised": round(draws_of[source] / self.steps.size, 6),
                "selected": count,
                "usable": usable[source],
                "drawn": draws_of[source],
                "repeated": repeats_of[source],
            }
            for source, count in sorted(selected.items())
        }


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is drawn, and how."""

    steps: int
    batch: int
    seed: int
    weights: Mapping[str, float]
    """By source; empty: as the selection has it."""
    repeats: bool
    """Whether a sample may come again."""

    @property
    def draws(self) -> int:
        return self.steps * self.batch


def prepare(
    run: StageRun,
    wanted: Sequence[Key],
    fetch: Fetch,
    backbone: Backbone,
    budget: Budget,
    *,
    keep_vision: bool,
    part_size: int = 64,
    team: Team = ALONE,
) -> Mixture:
    """Render what the budget needs, part by part; what cannot be used is skipped and replaced while there is more.

    Where the budget (steps x batch) is smaller than the selection, a random part of it is used, so that the
    selection's composition stays; where it is larger, samples come again, whole epochs at a time. With weights the
    same holds for each source and its share of the budget. A team renders its parts in turn.

    Raises:
        StageError: where no sample, or none of a source with a weight, is usable, or samples would have to come again
            though they may not.
        ValueError: weights that do not fit the selection.
    """
    meant = quotas(budget.weights, (source for source, _ in wanted), budget.draws) if budget.weights else {}
    _refuse_repeats(Counter(source for source, _ in wanted), meant, budget, "the selection has")
    order = _order(wanted, meant, budget)
    needed = _enough(wanted, meant, budget)
    have = Counter[str]()
    keys: list[Key] = []
    facts_of: list[dict[str, Any]] = []
    fresh: Iterator[Sample] | None = None
    parts = list(_parts(order, part_size))
    with progress_bar("render samples", min(budget.draws, len(order)), shown=team.first) as bar:
        for begin in range(0, len(parts), team.size):
            together = range(begin, min(begin + team.size, len(parts)))
            for number in together:
                if number % team.size == team.rank and run.part(_name(number)) is None:
                    if fresh is None:
                        # One stream from here on: opening the pool anew for each part would index it again.
                        fresh = fetch(
                            [wanted[i] for later in _missing(run, number, len(parts), team) for i in parts[later]]
                        )
                    samples = itertools.islice(fresh, len(parts[number]))
                    _commit(run, _name(number), samples, backbone, keep_vision)
            team.wait()
            for number in together:
                facts = run.part(_name(number))
                assert facts is not None
                facts_of.append(facts)
                keys += [(source, id) for source, id in facts["keys"]]
                have.update(source if meant else "" for source, _ in facts["keys"])
                bar.advance(len(parts[number]))
            if all(have[source] >= count for source, count in needed.items()):
                break
    if not keys:
        why = Skips([row for facts in facts_of for row in facts["skipped"]]).summary()
        raise StageError(f"no sample of the selection can be used (skipped: {why})")
    places = _needed(keys, meant, budget)
    lengths = np.asarray([n for facts in facts_of for n in facts["lengths"]], np.int64)[places]
    learnt = np.asarray([n for facts in facts_of for n in facts["learnt"]], np.int64)[places]
    used = [keys[place] for place in places]
    _refuse_repeats(Counter(source for source, _ in used), meant, budget, "usable are")
    plan = bucketed(lengths, _drawn(used, meant, budget), budget.batch, budget.seed)
    kept = KeptRows(run.out / FOLDER, [_name(n) for n, f in enumerate(facts_of) if f["keys"]]) if keep_vision else None
    return Mixture(wanted, used, lengths, learnt, plan, kept, places, budget.weights)


def _name(number: int) -> str:
    return f"rows-{number:05d}"


def _order(wanted: Sequence[Key], meant: Mapping[str, int], budget: Budget) -> list[int]:
    """The numbers of `wanted` as they are tried."""
    if not meant:
        count = len(wanted)
        return draws(count, count, budget.seed).tolist() if budget.draws < count else list(range(count))
    mixed = {
        source: at[draws(len(at), len(at), budget.seed)] for source, at in _by_source(wanted).items() if source in meant
    }
    # All sources come to their ends at about the same time; what stands in for skipped samples comes after.
    first = spread({source: at[: meant[source]] for source, at in mixed.items()})
    return [*first.tolist(), *spread({source: at[meant[source] :] for source, at in mixed.items()}).tolist()]


def _enough(wanted: Sequence[Key], meant: Mapping[str, int], budget: Budget) -> dict[str, int]:
    """Usable samples that are enough, of each source with a weight; without weights of all together (named "")."""
    if not meant:
        return {"": min(budget.draws, len(wanted))}
    there = Counter(source for source, _ in wanted)
    return {source: min(count, there[source]) for source, count in meant.items()}


def _missing(run: StageRun, first: int, count: int, team: Team) -> list[int]:
    """This process's parts from `first` on that are not there yet; a team of another size may have left gaps."""
    return [number for number in range(first, count, team.size) if run.part(_name(number)) is None]


def _needed(keys: Sequence[Key], meant: Mapping[str, int], budget: Budget) -> list[int]:
    """Which of the usable samples the budget takes."""
    if not meant:
        return list(range(min(len(keys), budget.draws)))
    return sorted(place for source, at in _by_source(keys).items() for place in at[: meant[source]].tolist())


def _drawn(keys: Sequence[Key], meant: Mapping[str, int], budget: Budget) -> NDArray[np.int64]:
    """The numbers of `keys` in the order of training."""
    if not meant:
        return draws(len(keys), budget.draws, budget.seed)
    there = _by_source(keys)
    if absent := sorted(source for source, count in meant.items() if count and source not in there):
        raise StageError(f"no sample of {', '.join(absent)} can be used: take it out of weights, or look at the skips")
    return spread(
        {source: at[draws(len(at), meant[source], budget.seed)] for source, at in there.items() if meant[source]}
    )


def _by_source(keys: Sequence[Key]) -> dict[str, NDArray[np.int64]]:
    found: dict[str, list[int]] = {}
    for number, (source, _) in enumerate(keys):
        found.setdefault(source, []).append(number)
    return {source: np.asarray(numbers, np.int64) for source, numbers in found.items()}


def _refuse_repeats(there: Mapping[str, int], meant: Mapping[str, int], budget: Budget, says: str) -> None:
    if budget.repeats:
        return
    groups = meant or {"": budget.draws}
    for source, count in groups.items():
        have = there.get(source, 0) if meant else sum(there.values())
        if count > have:
            of = f" of {source}" if source else ""
            raise StageError(
                f"{count} draws{of} were asked for (steps x batch{', by its weight' if source else ''}), but {says} "
                f"{have} samples, and repeats are off: lower steps or batch{' or the weight' if source else ''}, add "
                "data, or let samples come again (--repeats)"
            )


def _parts(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for at in range(0, len(order), size):
        yield order[at : at + size]


def _commit(
    run: StageRun, name: str, samples: Iterator[Sample], backbone: Backbone, keep_vision: bool
) -> dict[str, Any]:
    skips = Skips()
    rows: list[tuple[Key, Rendered]] = []
    for sample in samples:
        try:
            row = backbone.render(sample)
            if not any(row.learnt[1:]):
                raise BadSample("empty text", "nothing to learn")
            rows.append((sample.key, row))
        except BadSample as error:
            skips.add(error.reason, "/".join(sample.key), error.detail)
    files: dict[str, Callable[[Path], None]] = {}
    if keep_vision and rows:
        files = writers(name, backbone, [row for _, row in rows])
    facts = {
        "keys": [list(key) for key, _ in rows],
        "lengths": [len(row) for _, row in rows],
        "learnt": [sum(row.learnt[1:]) for _, row in rows],
    }
    return run.commit_part(name, facts, files, skips)
