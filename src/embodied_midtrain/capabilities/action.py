"""Action-NTP: the next actions of an episode as numbers in a text, for next-token prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.capabilities.splits import split_of
from embodied_midtrain.episodes import ACTION_PROMPT, Episode, chunk_at, target_prompt
from embodied_midtrain.robots.action_text import action_text
from embodied_midtrain.robots.actions import ActionNormaliser
from embodied_midtrain.sources.asking import Question

BINS = 256
"""Of each dimension, as RT-2 and OpenVLA have them."""


def fit(name: str, known: Iterable[tuple[str, NDArray[np.float32]]]) -> ActionNormaliser:
    """The range of the actions of the episodes that are trained on: held-out ones are written in the same numbers.

    Args:
        known: each episode's id and actions.

    Raises:
        StageError: where no episode is trained on.
    """
    actions = [own for id, own in known if split_of(id) == "train"]
    if not actions:
        raise StageError(f"{name} has no episode to train on; record more of them")
    return ActionNormaliser.fit(actions)


def guessed(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The share of the answers' numbers that the commonest one at each place gets right; None without answers."""
    numbers = [row["answer"].replace(";", "").split() for row in rows]
    best = [Counter(place).most_common(1)[0][1] / len(rows) for place in zip(*numbers, strict=True)]
    return round(float(np.mean(best)), 4) if best else None


def actions(episode: Episode, wanted: int, chunk: int, normaliser: ActionNormaliser) -> Iterator[tuple[int, Question]]:
    """At most `wanted` steps, even over the episode, each with the `chunk` actions from there on."""
    count = min(wanted, len(episode.actions))
    for step in np.unique(np.linspace(0, len(episode.actions) - 1, count).round().astype(int)).tolist():
        text = "; ".join(action_text(one, normaliser, BINS) for one in chunk_at(episode.actions, step, chunk))
        prompt = target_prompt(episode.instruction, ACTION_PROMPT)
        phrasings = (
            f"{prompt}? Give the next {chunk} actions.",
            f"{prompt}? Write {chunk} actions, one after another.",
        )
        yield step, Question("action", phrasings, text, ("action", step))
