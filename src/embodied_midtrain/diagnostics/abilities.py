"""Questions about held-out samples of a pool, each with wrong answers from its own source.

Wrong answers are what the source's other samples answer to a question of like wording, in like words where there are
enough of these: to "How much did the honey cost?" other sums, to "left or right?" the other side. What gives a right
answer away is then the picture, not its form.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from embodied_midtrain.samples import BadSample, Pool, Sample, Turn

Key = tuple[str, str]
LIKE = 0.5
"""Share of the words of two questions that are common (Jaccard) from which on they ask for the same kind of thing."""
COMMON = 0.05
"""Words in more than this share of a source's texts belong to its phrasing, not to what is said."""


@dataclass(frozen=True)
class Question:
    """A sample's first question.

    Attributes:
        asked: the turns before the answer.
        choices: assistant turns, the right one first.
        other: a sample of the same source whose picture is another one, for asking about the wrong picture.
    """

    ability: str
    sample: Sample
    asked: tuple[Turn, ...]
    choices: tuple[Turn, ...]
    other: Sample

    @property
    def chance(self) -> float:
        return 1 / len(self.choices)


@dataclass(frozen=True)
class Considered:
    """A sample that may be asked about, or whose answer may be a wrong one."""

    sample: Sample
    digest: str
    asked: tuple[Turn, ...]
    answer: Turn


def consider(
    pool: Pool, sources: Collection[str], excluded: Collection[Key], *, most: int, seed: int
) -> tuple[dict[str, list[Considered]], set[str]]:
    """One pass over the pool.

    Args:
        most: samples of a source that are kept; drawn by a hash of their names.

    Returns:
        The drawn samples of each source, in the order of the draw, and the digests of all excluded samples' pictures.
    """
    kept: dict[str, list[tuple[int, int, Considered]]] = {source: [] for source in sources}
    seen: set[str] = set()
    for number, sample in enumerate(pool):
        if sample.key in excluded:
            # One that cannot be read now was not trained on either.
            with contextlib.suppress(BadSample):
                seen.add(sample.seen())
        if sample.source not in kept:
            continue
        place = -int.from_bytes(hashlib.sha1(f"{seed}:{sample.source}:{sample.id}".encode()).digest()[:8], "big")
        heap = kept[sample.source]
        if len(heap) == most and place < heap[0][0]:
            continue
        if (found := _considered(sample)) is not None:
            # The largest of the smallest hashes comes first, and leaves first.
            (heapq.heappushpop if len(heap) == most else heapq.heappush)(heap, (place, number, found))
    return {source: [row for _, _, row in sorted(heap, reverse=True)] for source, heap in kept.items()}, seen


def _considered(sample: Sample) -> Considered | None:
    at = next((n for n, turn in enumerate(sample.turns) if turn.role == "assistant" and turn.text.strip()), 0)
    if not sample.pictures or at == 0:
        return None
    try:
        return Considered(sample, sample.seen(), sample.turns[:at], sample.turns[at])
    except BadSample:
        return None


def questions(
    ability: str,
    sources: Sequence[str],
    considered: Mapping[str, list[Considered]],
    excluded: Collection[Key],
    seen: Collection[str],
    *,
    count: int,
    choices: int,
    seed: int,
) -> list[Question]:
    """At most `count` questions, evenly over the sources that are there; none about an excluded picture."""
    held_out = {
        source: [row for row in considered[source] if row.sample.key not in excluded and row.digest not in seen]
        for source in sources
    }
    made: list[Question] = []
    # The poorest first, so that what they lack comes from the richer.
    for left, source in enumerate(sorted(sources, key=lambda name: (len(held_out[name]), name))):
        phrasing = Phrasing(considered[source])
        share = -(-(count - len(made)) // (len(sources) - left))
        before = len(made)
        for row in held_out[source]:
            if len(made) - before == share:
                break
            # Of the sample alone: the same whatever else is excluded.
            rng = random.Random(f"{seed}:{'/'.join(row.sample.key)}")
            wrong = phrasing.wrong(row, choices - 1, rng)
            others = [other for other in held_out[source] if other.digest != row.digest]
            if wrong and others:
                other = others[rng.randrange(len(others))].sample
                made.append(Question(ability, row.sample, row.asked, (row.answer, *wrong), other))
    return made


class Phrasing:
    """What is phrasing in a source's questions and answers, and what is said in them."""

    def __init__(self, rows: Sequence[Considered]) -> None:
        self._rows = rows
        self._common = _common_words(row.answer for row in rows)
        self._asked = [_words(row.asked[-1]) for row in rows]
        self._frames = [self._frame(row.answer) for row in rows]
        self._place = {row.sample.key: n for n, row in enumerate(rows)}

    def wrong(self, row: Considered, count: int, rng: random.Random) -> tuple[Turn, ...]:
        """At most `count` different answers to like questions, none of them the right one."""
        own = self._place[row.sample.key]
        like = [n for n in range(len(self._rows)) if n != own and _like(self._asked[own], self._asked[n])]
        rng.shuffle(like)
        like.sort(key=lambda n: self._frames[n] != self._frames[own])
        found: dict[str, Turn] = {_plain(row.answer): row.answer}
        for n in like:
            if len(found) > count:
                break
            found.setdefault(_plain(self._rows[n].answer), self._rows[n].answer)
        return tuple(found.values())[1:]

    def _frame(self, turn: Turn) -> tuple[str, ...]:
        """The answer with what is said taken out: ("about", "0"), ("it", "is", "x")."""
        frame: list[str] = []
        for word in _words(turn):
            sign = "0" if word[0].isdigit() else word if word in self._common else "x"
            if sign != "x" or frame[-1:] != ["x"]:
                frame.append(sign)
        return tuple(frame)


def _words(turn: Turn) -> list[str]:
    return re.findall(r"\d[\d.,:]*|<region>|\w+", turn.text.lower())


def _plain(turn: Turn) -> str:
    return " ".join(_words(turn)) + "".join(f" {region.values}" for region in turn.regions)


def _like(a: Sequence[str], b: Sequence[str]) -> bool:
    left, right = set(a), set(b)
    return not left | right or len(left & right) >= LIKE * len(left | right)


def _common_words(turns: Iterable[Turn]) -> set[str]:
    texts = [set(_words(turn)) for turn in turns]
    counts = Counter(word for text in texts for word in text)
    return {word for word, times in counts.items() if times > max(1, COMMON * len(texts))}
