"""What lmms-eval asks for SpatialEval, and what it counts as right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any


def picture(doc: Mapping[str, Any]) -> list[Any]:
    return [doc["image"].convert("RGB")]


def question(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, str] | None = None) -> str:
    """The question as the data set writes it, its options in it."""
    around = lmms_eval_specific_kwargs or {}
    return f"{around.get('pre_prompt', '')}{doc['text'].strip()}{around.get('post_prompt', '')}"


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    return {"spatialeval_acc": float(letter(results[0]) == doc["oracle_option"].strip().strip("().").upper())}


def letter(said: str) -> str:
    """The option that an answer names: "B", "(B)", "B. 3", "The answer is B"; empty where it names none."""
    found = re.match(r"\s*\(?([A-F])(?:[).:,]|\s*$)", said) or re.search(
        r"\b(?i:answer|option)\b\W*(?:is)?\W*\(?([A-F])\b", said
    )
    return found.group(1) if found else ""
