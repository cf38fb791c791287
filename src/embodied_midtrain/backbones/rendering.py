"""A conversation as pieces of text that are trained on or not, by any model's chat template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.samples import BadSample

Template = Callable[[list[dict[str, Any]], bool], str]
"""(messages, whether the assistant's next turn is opened) -> text."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the rendered conversation."""

    text: str
    learnt: bool
    pictures: int = 0
    """How many of the sample's pictures are in it; they come in order."""


def messages_of(turns: Sequence[tuple[str, str]], pictures: int) -> list[dict[str, Any]]:
    """(role, text) pairs as chat messages, all pictures at the head of the first user turn.

    Raises:
        BadSample: "empty text" where no assistant turn says anything.
    """
    cleaned = [(role, text.replace("<image>", "").strip()) for role, text in turns]
    if pictures and (not cleaned or cleaned[0][0] != "user"):
        cleaned.insert(0, ("user", ""))
    if not any(role == "assistant" and text for role, text in cleaned):
        raise BadSample("empty text", "no assistant turn with text")
    return _messages(cleaned, pictures)


def prompt_messages(text: str, pictures: int) -> list[dict[str, Any]]:
    return _messages([("user", text.replace("<image>", "").strip())], pictures)


def _messages(turns: Sequence[tuple[str, str]], pictures: int) -> list[dict[str, Any]]:
    messages = []
    for n, (role, text) in enumerate(turns):
        images: list[dict[str, Any]] = [{"type": "image"}] * (pictures if n == 0 else 0)
        messages.append({"role": role, "content": [*images, {"type": "text", "text": text}]})
    return messages


def pieces(template: Template, messages: list[dict[str, Any]], *, open_answer: bool = False) -> list[Piece]:
    """Cut the rendered conversation so that assistant text and its end mark are pieces of their own.

    Pieces are tokenised apart; what comes before an answer is thus the same in training and at inference.

    Raises:
        StageError: where a template does not render a longer conversation as a continuation of a shorter one.
    """
    whole = template(messages, open_answer)
    found: list[Piece] = []
    at = 0
    for n, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        start, end = len(template(messages[:n], True)), len(template(messages[: n + 1], False))
        if template(messages[:n], True) != whole[:start] or not at <= start <= end <= len(whole):
            raise StageError(
                "this model's chat template does not render a conversation step by step; answers cannot be told "
                "from questions. Give the processor a template of its own."
            )
        # Line ends after the end mark belong to the template, not to the answer.
        stop = start + len(whole[start:end].rstrip())
        found.append(Piece(whole[at:start], False))
        found.append(Piece(whole[start:stop], True))
        at = stop
    rest = whole[at:]
    if rest.strip():
        found.append(Piece(rest, False))
    pictures = sum(part["type"] == "image" for part in messages[0]["content"]) if messages else 0
    return [Piece(found[0].text, found[0].learnt, pictures), *found[1:]]
