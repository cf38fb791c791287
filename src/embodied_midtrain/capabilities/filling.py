"""Fills the domains part by part: each is committed, so that a killed run goes on from there."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from embodied_midtrain.artifacts import Skips, StageError, StageRun, write_json
from embodied_midtrain.capabilities.action import fit
from embodied_midtrain.capabilities.domains import DOMAINS
from embodied_midtrain.capabilities.pooled import drawn
from embodied_midtrain.capabilities.posing import (
    Ledger,
    Quotas,
    Tabletop,
    from_actions,
    from_scenes,
    from_traces,
    from_views,
)
from embodied_midtrain.capabilities.splits import Split, split_of
from embodied_midtrain.coupled.opening import Traces
from embodied_midtrain.episodes import Robots
from embodied_midtrain.progress import Bar
from embodied_midtrain.samples import Sample
from embodied_midtrain.sources.opening import open_pool
from embodied_midtrain.sources.table import write_table

T = TypeVar("T")
EPISODES, SAMPLES = 32, 256
"""Of one part, of episodes and of scenes: what a killed run loses at most, and among which answers are kept even."""
REMEDY = "Record demonstrations with what is true of them: emt demos --truth-every 5."


class Filling:
    """Fills the domains, material by material."""

    def __init__(self, run: StageRun, wanted: Quotas, bar: Bar, *, split: Split, seed: int, chunk: int) -> None:
        """`chunk`: actions in an answer."""
        self._run, self._wanted, self._bar = run, wanted, bar
        self._split, self._seed, self._chunk = split, seed, chunk
        self._made: Counter[str] = Counter()
        self._own: set[str] = set()

    def own(self, domain: str, place: Path | str) -> None:
        """A user's pool in place of what would be made; its bad records are the part's skips."""
        self._own.add(domain)

        def samples(ledger: Ledger) -> Iterator[Sample]:
            pool, wanted = open_pool(place, skips=ledger.skips), self._wanted[domain]
            for sample in drawn(pool, domain, wanted, self._split, self._seed, ledger.skips):
                ledger.samples[domain] += 1
                yield sample
            if not ledger.samples[domain]:
                found = ledger.skips.summary()
                raise StageError(f"{domain}: {place} has no sample of the split {self._split} (skipped: {found})")

        self._part(f"own-{domain}", samples)

    def looks(self, traces: Traces) -> None:
        """Questions about looks; half of a domain's where it can be asked about scenes without a robot as well."""
        wanted = {
            name: quota // 2 if DOMAINS[name].scene else quota
            for name, quota in self._missing().items()
            if DOMAINS[name].look
        }
        if wanted:
            known = len(traces.skips)
            of = _on_this_side(traces.name, (trace.id for trace in traces), self._split, traces.skips)
            # The stream is read again, and says again what it skips.
            del traces.skips.rows[known:]
            for start, part in _parts(trace for trace in traces if split_of(trace.id) == self._split):
                self._part(
                    f"looks-{start:06d}", partial(from_traces, part, start, of, wanted, self._seed), traces.fingerprint
                )
            self._run.skips.rows.extend(traces.skips.rows)

    def actions(self, robots: Robots) -> None:
        """Actions as text, of as many steps of each episode."""
        wanted = {name: quota for name, quota in self._missing().items() if "actions" in DOMAINS[name].materials}
        if wanted:
            known = [(episode.id, episode.actions) for episode in robots]
            normaliser = fit(robots.name, known)
            of = _on_this_side(robots.name, (id for id, _ in known), self._split, Skips())
            for start, part in _parts(episode for episode in robots if split_of(episode.id) == self._split):
                samples = partial(from_actions, part, start, of, wanted, self._chunk, normaliser, self._seed)
                self._part(f"actions-{start:06d}", samples, robots.fingerprint())
            write_json(self._run.file("actions.json"), {"range": normaliser.to_json(), "chunk": self._chunk})

    def scenes(self, cache: Path) -> None:
        """Questions about scenes without a robot, and about the cameras that look at them."""
        world = Tabletop(cache, self._seed, self._split)
        try:
            missing = self._missing()
            asked = {name: quota for name, quota in missing.items() if DOMAINS[name].scene}
            views = {name: quota for name, quota in missing.items() if "views" in DOMAINS[name].materials}
            for name, quotas, samples in (("scenes", asked, from_scenes), ("views", views, from_views)):
                for number in range(-(-max(quotas.values(), default=0) // SAMPLES)):
                    left = {d: min(SAMPLES, quota - number * SAMPLES) for d, quota in quotas.items()}
                    due = {domain: quota for domain, quota in left.items() if quota > 0}
                    self._part(f"{name}-{number:06d}", partial(samples, world, number, due))
        finally:
            world.close()

    def _missing(self) -> dict[str, int]:
        return {name: self._wanted[name] - self._made[name] for name in self._wanted if name not in self._own}

    def _part(self, name: str, samples: Callable[[Ledger], Iterator[Sample]], mark: str = "") -> None:
        record = self._run.part(name) or self._commit(name, samples, mark)
        self._made.update(record["samples"])
        self._bar.advance(sum(record["samples"].values()))
        self._bar.say(name)

    def _commit(self, name: str, samples: Callable[[Ledger], Iterator[Sample]], mark: str) -> dict[str, Any]:
        ledger, facts = Ledger(mark), dict[str, Any]()

        def write(path: Path) -> None:
            write_table(path, samples(ledger))
            # The record is written after the file, and so with the counts in it.
            facts["samples"] = dict(ledger.samples)
            facts["left"] = [
                [domain, kind, reason, times]
                for domain, counts in sorted(ledger.left.items())
                for (kind, reason), times in sorted(counts.items())
                if kind == "any" or kind in DOMAINS[domain].kinds
            ]

        def write_rows(path: Path) -> None:
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ledger.rows), "utf-8")

        writers = {f"{name}.parquet": write, f"questions-{name}.jsonl": write_rows}
        return self._run.commit_part(name, facts, writers, ledger.skips)


def _on_this_side(name: str, ids: Iterable[str], split: Split, skips: Skips) -> int:
    """How many episodes a split has.

    Raises:
        StageError: where there is none.
    """
    sides = Counter(map(split_of, ids))
    if not sides:
        raise StageError(f"no episode of {name} says what is true of it ({skips.summary()}). {REMEDY}")
    if not sides[split]:
        raise StageError(f"none of the {sides.total()} episodes of {name} is of the split {split}: record more.")
    return sides[split]


def _parts(stream: Iterable[T]) -> Iterator[tuple[int, list[T]]]:
    """Parts of `EPISODES`, each with the number of its first."""
    rest, start = iter(stream), 0
    while part := list(itertools.islice(rest, EPISODES)):
        yield start, part
        start += len(part)
