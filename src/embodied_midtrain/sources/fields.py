"""From a record of any data set to a `Sample`: which field holds what, and the three shapes that records have.

A record is a conversation (LLaVA, ShareGPT, Qwen-VL, messages), a question with its answer (options perhaps), or an
image with a caption.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from embodied_midtrain.samples import BadSample, Sample, Turn
from embodied_midtrain.sources.geometry import Convention, lift
from embodied_midtrain.sources.pictures import ImageFolder

IMAGE_TAG = "<image>"
VIDEO_TAG = "<video>"
_ROLES: dict[str, Literal["user", "assistant"]] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LONGEST_LIST = 10_000
"""Characters of a list written as text that are parsed."""


@dataclass(frozen=True)
class Fields:
    """Which fields of a record hold what; of several names the first one that is there counts."""

    id: tuple[str, ...] = ("id", "__key__", "key", "sample_id", "question_id")
    """What names it; without one it is named by its place."""
    source: tuple[str, ...] = ("source", "dataset")
    """The data set that it comes from; else the name of the file or of the source."""
    licence: tuple[str, ...] = ("licence", "license")
    image: tuple[str, ...] = ("image", "images")
    """A path, bytes, a record of these, or a list."""
    video: tuple[str, ...] = ("video", "videos")
    """Not read: a record with a video in place of images is skipped."""
    conversation: tuple[str, ...] = ("conversations", "messages")
    question: tuple[str, ...] = ("question", "problem")
    answer: tuple[str, ...] = ("answer", "solution")
    """Text, or the number of an option."""
    options: tuple[str, ...] = ("options", "choices")
    """A list, also one written as text."""
    caption: tuple[str, ...] = ("caption", "text", "txt")
    prompt: str = "Describe the image."
    """What is asked where there is only a caption."""
    coordinates: Convention = "none"
    """How points and boxes are written in the text; they become geometry."""
    base64: bool = False
    """Whether images are text in base64."""

    def columns(self) -> list[str]:
        """Every field that may be read, but videos, which only count where there are no images."""
        named = (self.id, self.source, self.licence, self.image, self.conversation, self.question, self.answer)
        return [name for names in (*named, self.options, self.caption) for name in names]


@dataclass(frozen=True)
class Maker:
    """Makes samples of one source's records.

    Raises:
        BadSample: by `sample`, where a record has nothing to learn from or holds what it must not.
    """

    source: str
    fields: Fields = field(default_factory=Fields)
    images: ImageFolder = field(default_factory=ImageFolder)
    licence: str = ""
    rewrite: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    """For records of a shape of their own: to one of the three."""
    prefix: str = ""
    """Goes before each id, where ids are unique within a file only."""

    def sample(self, record: Any, place: str, origin: str) -> Sample:
        """The record as a sample.

        Args:
            place: names it where no field does.
            origin: where it can be found again.
        """
        if not isinstance(record, dict):
            raise BadSample("not a record", f"{type(record).__name__} in place of an object")
        if self.rewrite is not None:
            record = self.rewrite(record)
        fields = self.fields
        turns, inline, tags = self._turns(record)
        named = _as_list(_first(record, fields.image)) or inline
        if not named and _first(record, fields.video):
            raise _video(str(_first(record, fields.video))[:80])
        if tags > len(named):
            raise BadSample("missing image", f"the text speaks of {tags} images, {len(named)} are given")
        sample = Sample(
            source=_text(record, fields.source) or self.source,
            id=self.prefix + (_text(record, fields.id) or place),
            pictures=tuple(self.images.picture(value) for value in named),
            turns=turns,
            licence=_text(record, fields.licence) or self.licence,
            origin=origin,
        )
        sample.check()
        return sample

    def _turns(self, record: dict[str, Any]) -> tuple[tuple[Turn, ...], list[str], int]:
        """The turns, images given inside them, and how many images the text speaks of."""
        fields = self.fields
        rows = _first(record, fields.conversation)
        if rows is not None:
            return self._conversation(rows)
        question, caption = _first(record, fields.question), _first(record, fields.caption)
        if question is not None:
            asked, tags = _untagged(_said(question, "question"))
            asked, answered = self._answered(record, asked)
            return (self._turn("user", asked), self._turn("assistant", answered)), [], tags
        if caption is not None:
            text, tags = _untagged(_said(caption, "caption"))
            return (Turn("user", fields.prompt), self._turn("assistant", text)), [], tags
        wanted = ", ".join((*fields.conversation, *fields.question, *fields.caption))
        raise BadSample("broken record", f"none of the fields {wanted}; it has {', '.join(map(str, record))[:200]}")

    def _conversation(self, rows: Any) -> tuple[tuple[Turn, ...], list[str], int]:
        if not isinstance(rows, (list, tuple)):
            raise BadSample("broken record", "the conversation is no list of turns")
        turns: list[Turn] = []
        inline: list[str] = []
        tags, system = 0, ""
        for row in rows:
            if not isinstance(row, dict):
                raise BadSample("broken record", "a turn is not an object")
            role, content = row.get("from", row.get("role")), row.get("value", row.get("content"))
            text, count = _content(content, inline)
            tags += count
            if role == "system":
                system = text
                continue
            if not isinstance(role, str) or role not in _ROLES:
                raise BadSample("unknown role", repr(role)[:80])
            if system:
                text, system = f"{system}\n{text}", ""
            turns.append(self._turn(_ROLES[role], text))
        return tuple(turns), inline, tags

    def _answered(self, record: dict[str, Any], asked: str) -> tuple[str, str]:
        """The question with its options, and the answer in words."""
        answer = _first(record, self.fields.answer)
        given = _first(record, self.fields.options)
        if given is None:
            return asked, _said(answer, "answer")
        options = [str(option).strip() for option in _listed(given)]
        if not 2 <= len(options) <= len(_LETTERS):
            raise BadSample("broken record", f"{len(options)} options")
        lines = [f"{letter}. {option}" for letter, option in zip(_LETTERS[: len(options)], options, strict=True)]
        return "\n".join([asked, *lines]), lines[_chosen(answer, options)]

    def _turn(self, role: Literal["user", "assistant"], text: str) -> Turn:
        text, regions = lift(text, self.fields.coordinates)
        return Turn(role, text, regions)


def _first(record: dict[str, Any], names: Sequence[str]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def _text(record: dict[str, Any], names: Sequence[str]) -> str:
    """The first of these fields that holds a text or whole number."""
    values = (record.get(name) for name in names)
    return next((str(v) for v in values if isinstance(v, (str, int)) and not isinstance(v, bool) and str(v)), "")


def _said(value: Any, what: str) -> str:
    """A text, or a number or truth value in words."""
    if isinstance(value, bool):
        return "Yes." if value else "No."
    if isinstance(value, (int, float)):
        return str(value)
    if not isinstance(value, str):
        raise BadSample("broken record", f"the {what} is {type(value).__name__} in place of text")
    return value.strip()


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    found = list(value) if isinstance(value, (list, tuple)) else [value]
    if not all(found):
        raise BadSample("broken record", "the image is neither a path nor a list of paths, but empty")
    return found


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):
        try:
            if len(value) > _LONGEST_LIST:
                raise ValueError("too long")
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise BadSample("broken record", f"the options are no list: {str(error)[:80]}") from error
    if not isinstance(value, (list, tuple)):
        raise BadSample("broken record", f"the options are {type(value).__name__} in place of a list")
    return list(value)


def _chosen(answer: Any, options: list[str]) -> int:
    """The option that an answer names: by number from 0, by letter, or by its text."""
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options):
        return answer
    if isinstance(answer, str):
        said = answer.strip()
        if said in options:
            return options.index(said)
        letter = said.strip("().").upper()
        if len(letter) == 1 and letter in _LETTERS[: len(options)]:
            return _LETTERS.index(letter)
    raise BadSample("broken record", f"the answer {str(answer)[:80]!r} is none of the {len(options)} options")


def _video(found: str) -> BadSample:
    return BadSample("video", f"{found}: videos are not read; give their frames as a list of images")


def _untagged(text: str) -> tuple[str, int]:
    if VIDEO_TAG in text:
        raise _video(f"the text says {VIDEO_TAG}")
    return text.replace(IMAGE_TAG, "").strip(), text.count(IMAGE_TAG)


def _content(content: Any, inline: list[str]) -> tuple[str, int]:
    """A turn's text without image tags, and the number of tags; images in parts are added to `inline`."""
    parts = content if isinstance(content, (list, tuple)) else [content]
    texts, tags = [], 0
    for part in parts:
        if isinstance(part, dict) and part.get("type") in ("image", "image_url"):
            name = part.get("image_url", part.get("image", part.get("path")))
            name = name.get("url") if isinstance(name, dict) else name
            tags += 1
            if isinstance(name, str) and name:
                inline.append(name)
            continue
        if isinstance(part, dict) and part.get("type") in ("video", "video_url"):
            raise _video(f"a part of type {part['type']}")
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            raise BadSample("broken record", "a turn's content is neither text nor a list of text and image parts")
        clean, count = _untagged(text)
        texts.append(clean)
        tags += count
    return "\n".join(text for text in texts if text), tags
