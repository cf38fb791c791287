"""Records out of JSON and JSONL files of any size, one at a time."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from io import TextIOWrapper
from typing import IO, Any

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.sources.places import Place

_CHUNK = 1 << 20
_LARGEST_RECORD = 64 << 20
_LINES_TRIED = 20
_BETWEEN = re.compile(r"[\s,]*")


class Broken:
    """Stands where a line is not JSON."""

    def __init__(self, why: str) -> None:
        self.why = why


def is_list(path: Place) -> bool:
    """Whether the file is one JSON list (else: one record a line).

    Raises:
        StageError: where it is missing, a folder, empty, or neither of the two.
    """
    try:
        with path.open() as file:
            head = file.read(_CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise StageError(f"{path.text} cannot be read: {error.strerror}") from error
    if not head:
        raise StageError(f"{path.text} is empty; a list or lines of conversation records were expected")
    if head.startswith(b"[") and path.suffix != ".jsonl":
        return True
    if all(isinstance(value, Broken) for value in itertools.islice(read_lines(path), _LINES_TRIED)):
        raise StageError(
            f"{path.text} is not JSON: neither a list of records nor one record a line. "
            "Give a pool folder, or a .json or .jsonl file of conversations."
        )
    return False


def read_records(path: Place) -> Iterator[Any | Broken]:
    """All records in order; a `Broken` for each line of a JSONL file that cannot be parsed.

    Raises:
        StageError: where a JSON list is damaged: nothing after that place could be told apart.
    """
    return read_list(path) if is_list(path) else read_lines(path)


def read_lines(path: Place) -> Iterator[Any | Broken]:
    with path.open() as file:
        for number, line in enumerate(file):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line
            if not text.strip():
                continue
            try:
                yield json.loads(text)
            except (ValueError, RecursionError) as error:
                yield Broken(f"line {number + 1}: {error}")


def read_list(path: Place) -> Iterator[Any]:
    with path.open() as raw, TextIOWrapper(raw, encoding="utf-8-sig") as file:
        try:
            yield from _elements(file, path)
        except UnicodeDecodeError as error:
            raise StageError(f"{path.text} is not UTF-8 text: {error}") from error


def _elements(file: IO[str], path: Place) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    text, at, count, ended = file.read(_CHUNK).lstrip()[1:], 0, 0, False
    while True:
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
        if text[at : at + 1] == "]":
            return
        try:
            value, end = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError) as error:
            # A record that the chunk cut off shows as an error at its end, or as a string without one.
            cut = isinstance(error, json.JSONDecodeError) and (
                "Unterminated" in error.msg or error.pos >= len(text) - 16
            )
            if ended or not cut or len(text) - at > _LARGEST_RECORD:
                raise StageError(
                    f"{path.text} is damaged after record {count} ({error}); mend the file, or save it as one record a "
                    "line (.jsonl), where a bad line costs one record only"
                ) from error
            more = file.read(max(_CHUNK, len(text) - at))
            text, at, ended = text[at:] + more, 0, not more
            continue
        yield value
        at, count = end, count + 1
