"""What questions there are, counted in one pass: a pool may hold more of them than memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

KEPT = 2_000
"""Questions of a kind that are kept, the first ones."""
TOLD = 12
"""Answers of a kind that are told, the commonest ones."""


class Tally:
    """Counts of questions as `couple.read_facts` gives them.

    Attributes:
        questions: how many there are of each kind.
        first: of each kind the first `KEPT`, by which it is judged.
        episodes: those that are asked about.
    """

    def __init__(self, rows: Iterable[dict[str, Any]] = ()) -> None:
        self.questions: Counter[str] = Counter()
        self.first: dict[str, list[dict[str, Any]]] = {}
        self.episodes: set[str] = set()
        self._answers: dict[str, Counter[str]] = {}
        for row in rows:
            self.add(row)

    def add(self, row: dict[str, Any]) -> None:
        kind = row["kind"]
        self.questions[kind] += 1
        self.episodes.add(row["episode"])
        self._answers.setdefault(kind, Counter())[row["answer"]] += 1
        first = self.first.setdefault(kind, [])
        if len(first) < KEPT:
            first.append(row)

    def kinds(self) -> dict[str, Any]:
        """For each kind how many questions there are, and how often each of its commonest answers is given."""
        return {
            kind: {"questions": number, "answers": dict(self._answers[kind].most_common(TOLD))}
            for kind, number in sorted(self.questions.items())
        }
