"""How well questions are answered without their picture: by the commonest answer, and from the words alone."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.coupled.tally import Tally
from embodied_midtrain.extras import require
from embodied_midtrain.samples import REGION_MARK

FOLDS = 5
LEAST = 20
"""Questions of a kind below which nothing is said."""
NEAR = 0.05
"""A guessed point counts as right within this part of the picture."""

CEILINGS: dict[str, float] = {
    **dict.fromkeys(("nearer", "side", "same-thing", "visible", "holding"), 0.7),
    **dict.fromkeys(("direction", "distance", "gap", "what-at", "phase", "next"), 0.65),
    **dict.fromkeys(("where", "box", "cross-view", "meant", "path", "path-end"), 0.5),
    # Things stand in one part of the table, those of one task near to one place.
    "graspable": 0.75,
    "grasp-point": 0.7,
    # The instruction tells the plan but for where in it the robot is; the scene's things are few.
    **dict.fromkeys(("plan", "describe"), 1.0),
}
"""The largest part of each kind that is to be answerable without the picture."""


def baselines(tally: Tally, ceilings: Mapping[str, float] = CEILINGS) -> dict[str, dict[str, Any]]:
    """By kind: `majority`, the share of the commonest answer; `words`, the accuracy of a classifier (term frequencies
    of the question, logistic regression) trained on other episodes; for kinds that are answered by a place, both are
    the share of guesses (the mean place; the nearest question's) within `NEAR`; and whether the `ceiling` holds.

    Judged by the questions that the tally has kept. `words` is None where scikit-learn is missing, or there are too few
    questions or episodes.
    """
    found = {}
    for kind, own in sorted(tally.first.items()):
        judged = _places(own) if REGION_MARK in own[0]["answer"] else _answers(own)
        ceiling = ceilings.get(kind, 1.0)
        best = max(value for value in judged.values() if value is not None)
        enough = len(own) >= LEAST
        held = best <= ceiling if enough else None
        found[kind] = {"questions": tally.questions[kind], **judged, "ceiling": ceiling, "held": held}
    return found


def _answers(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    answers = [row["answer"] for row in rows]
    majority = Counter(answers).most_common(1)[0][1] / len(answers)
    return {"majority": round(majority, 4), "words": _words(rows, answers)}


def _words(rows: Sequence[dict[str, Any]], answers: Sequence[str]) -> float | None:
    episodes = [row["episode"] for row in rows]
    folds = min(FOLDS, len(set(episodes)))
    if len(rows) < LEAST or folds < 2:
        return None
    if len(set(answers)) < 2:
        return 1.0
    try:
        text = require("sklearn.feature_extraction.text", "report")
        linear = require("sklearn.linear_model", "report")
        pipeline = require("sklearn.pipeline", "report")
        chosen = require("sklearn.model_selection", "report")
    except StageError:
        return None
    labels, asked = np.array(answers), np.array([_asked(row) for row in rows])
    right = 0
    for train, test in chosen.GroupKFold(folds).split(asked, labels, episodes):
        if len(set(labels[train])) < 2:
            right += int((labels[test] == labels[train][0]).sum())
            continue
        model = pipeline.make_pipeline(
            text.TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 2)), linear.LogisticRegression(max_iter=300)
        )
        with warnings.catch_warnings():
            # Of plans there are almost as many as questions; scikit-learn wonders.
            warnings.simplefilter("ignore", UserWarning)
            model.fit(asked[train], labels[train])
        right += int((model.predict(asked[test]) == labels[test]).sum())
    return round(right / len(rows), 4)


def _asked(row: dict[str, Any]) -> str:
    """The question with its places as words, which a classifier may use too."""
    places = [f"{axis}{int(value * 8)}" for region in row["pointed"] for axis, value in enumerate(region)]
    return " ".join([row["question"], *places, *row["views"]])


def _places(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Of the last region's middle."""
    where = np.array([_middle(row["shown"][-1]) for row in rows])
    mean = float((np.linalg.norm(where - where.mean(0), axis=1) <= NEAR).mean())
    return {"majority": round(mean, 4), "words": _nearest(rows, where)}


def _middle(values: Sequence[float]) -> tuple[float, float]:
    return (values[0], values[1]) if len(values) == 2 else ((values[0] + values[2]) / 2, (values[1] + values[3]) / 2)


def _nearest(rows: Sequence[dict[str, Any]], where: np.ndarray) -> float | None:
    """The mean place of the questions of other episodes that ask in the same words."""
    episodes = np.array([row["episode"] for row in rows])
    folds = min(FOLDS, len(set(episodes)))
    if len(rows) < LEAST or folds < 2:
        return None
    fold = {episode: n % folds for n, episode in enumerate(sorted(set(episodes.tolist())))}
    of = np.array([fold[episode] for episode in episodes.tolist()])
    words = np.array([_asked(row) for row in rows])
    right = 0
    for n in range(folds):
        train, test = of != n, of == n
        overall = where[train].mean(0)
        means = {word: where[train & (words == word)].mean(0) for word in set(words[train].tolist())}
        guessed = np.array([means.get(word, overall) for word in words[test].tolist()])
        right += int((np.linalg.norm(where[test] - guessed, axis=1) <= NEAR).sum())
    return round(right / len(rows), 4)
