"""One sample as it is going to be written: turns that alternate, geometry in words, images that any tool opens."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embodied_midtrain.samples import BadSample, Picture, Sample, decode_image
from embodied_midtrain.sources.export.coordinates import Coordinates, Size, write_turn
from embodied_midtrain.sources.export.selection import Line
from embodied_midtrain.sources.fields import IMAGE_TAG
from embodied_midtrain.sources.pictures import look

_ENDINGS = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png"}


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image file's bytes: JPEG and PNG as they were found, anything else turned into PNG."""

    data: bytes
    ending: str
    size: Size

    @property
    def name(self) -> str:
        """A path below the export's folder, made of the content: equal images are one file, no id becomes a path."""
        digest = hashlib.sha256(self.data).hexdigest()[:32]
        return f"images/{digest[:2]}/{digest}.{self.ending}"


@dataclass(frozen=True, slots=True)
class Row:
    """What a form writes.

    Attributes:
        number: of the row in the export, from 0.
        turns: (role, text), user and assistant in turn, a user first and an assistant last.
        facts: id, source, licence, origin, score, rank, reason: as far as they are known.
        repeated: whether an earlier row is the same sample.
    """

    number: int
    turns: tuple[tuple[str, str], ...]
    pictures: tuple[Encoded, ...]
    facts: dict[str, Any]
    repeated: bool = False

    def tagged(self) -> list[tuple[str, str]]:
        """The turns, one image tag for each image at the head of the first."""
        (role, text), *rest = self.turns
        return [(role, "\n".join([IMAGE_TAG] * len(self.pictures) + [text] * bool(text))), *rest]

    def conversation(self) -> list[dict[str, str]]:
        """The turns as LLaVA and all that came after it write them."""
        names = {"user": "human", "assistant": "gpt"}
        return [{"from": names[role], "value": text} for role, text in self.tagged()]


def make_rows(
    sample: Sample,
    lines: Sequence[Line],
    first: int,
    *,
    coordinates: Coordinates,
    reserved: Sequence[str] = (),
    decode: bool = True,
) -> list[Row]:
    """The sample once for each of its lines; from the second on its id is followed by "#2", "#3".

    Args:
        first: number of the first row.
        reserved: what the text must not hold, since the tool takes it for an image of its own.

    Raises:
        BadSample: where an image is broken, or the text cannot be written.
    """
    pictures = tuple(_encoded(picture, decode) for picture in sample.pictures)
    sizes = [picture.size for picture in pictures]
    turns = alternating([(turn.role, write_turn(turn, coordinates, sizes)) for turn in sample.turns])
    if not any(role == "assistant" and text.strip() for role, text in turns):
        raise BadSample("empty text", "no assistant turn with text")
    for _, text in turns:
        found = next((word for word in reserved if word in text), None)
        if found is not None:
            raise BadSample("reserved word", f"the text holds {found}, which stands for a file there")
    about = {"id": sample.id, "source": sample.source, "licence": sample.licence, "origin": sample.origin}
    _check_writable([*about.values(), *(text for _, text in turns)])
    rows: list[Row] = []
    for line in lines:
        facts = {name: value for name, value in {**about, **line.facts}.items() if value not in ("", None)}
        facts["id"] = f"{sample.id}#{line.copy + 1}" if line.copy else sample.id
        rows.append(Row(first + len(rows), tuple(turns), pictures, facts, line.copy > 0))
    return rows


def alternating(turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """User and assistant in turn: turns of one side joined, an empty question put first where there is none.

    What a user says last is left out: nothing answers it.
    """
    found: list[tuple[str, str]] = []
    for role, text in turns:
        if found and found[-1][0] == role:
            found[-1] = (role, f"{found[-1][1]}\n{text}")
        else:
            found.append((role, text))
    if found and found[0][0] == "assistant":
        found.insert(0, ("user", ""))
    return found[:-1] if found and found[-1][0] == "user" else found


def _encoded(picture: Picture, decode: bool) -> Encoded:
    data = picture.read()
    size, _ = look(data, decode=decode)
    for start, ending in _ENDINGS.items():
        if data.startswith(start):
            return Encoded(data, ending, size)
    buffer = io.BytesIO()
    decode_image(data).save(buffer, "PNG")
    return Encoded(buffer.getvalue(), "png", size)


def _check_writable(texts: Sequence[str]) -> None:
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError as error:
        raise BadSample("broken text", f"half a character that no file can hold: {error.reason}") from error
