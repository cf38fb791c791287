"""TFRecord files and the tf.train.Example messages in them, read without TensorFlow.

A record: its length (8 bytes), a checksum of that, the bytes, a checksum of these; the checksums are masked CRC-32C.
An Example is a protocol buffer of three small messages, of which the wire format is read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.episodes import BadEpisode
from embodied_midtrain.extras import require

Value = list[bytes] | NDArray[np.float32] | NDArray[np.int64]
_LARGEST = 1 << 31
"""Bytes of one record; a larger length is a damaged one."""


def read_records(file: IO[bytes]) -> Iterator[bytes]:
    """The records of one file, in order.

    Raises:
        BadEpisode: "truncated record" or "wrong checksum"; nothing after that place could be told apart.
    """
    crc = require("google_crc32c", "data")
    while head := file.read(12):
        if len(head) < 12:
            raise BadEpisode("truncated record", "the file ends within a record's length")
        length, check = struct.unpack("<QI", head)
        if _masked(crc.value(head[:8])) != check:
            raise BadEpisode("wrong checksum", "of a record's length")
        if length > _LARGEST:
            raise BadEpisode("wrong checksum", f"a record of {length} bytes")
        data = file.read(length)
        foot = file.read(4)
        if len(data) < length or len(foot) < 4:
            raise BadEpisode("truncated record", f"{len(data)} of {length} bytes are there")
        if _masked(crc.value(data)) != struct.unpack("<I", foot)[0]:
            raise BadEpisode("wrong checksum", "of a record")
        yield data


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def parse_example(data: bytes) -> dict[str, Value]:
    """The features of one Example: lists of bytes, float32 or int64 values by name.

    Raises:
        BadEpisode: where the bytes are no such message.
    """
    found: dict[str, Value] = {}
    try:
        for features in _messages(data, 1):
            for entry in _messages(features, 1):
                names, values = list(_messages(entry, 1)), list(_messages(entry, 2))
                if len(names) != 1 or len(values) != 1:
                    raise BadEpisode("broken record", "a feature without name or value")
                found[bytes(names[0]).decode()] = _value(values[0])
    except (IndexError, ValueError) as error:
        if isinstance(error, BadEpisode):
            raise
        raise BadEpisode("broken record", f"no tf.train.Example: {error}") from error
    return found


def _value(data: memoryview | bytes) -> Value:
    for number, wire, content in _fields(memoryview(data)):
        if wire != 2:
            raise ValueError("a feature's list is no message")
        assert isinstance(content, memoryview)
        if number == 1:
            return [bytes(item) for item in _messages(content, 1)]
        if number == 2:
            floats = [item for n, _, item in _fields(content) if n == 1]
            packed = b"".join(bytes(i) if isinstance(i, memoryview) else struct.pack("<I", i) for i in floats)
            return np.frombuffer(packed, "<f4").astype(np.float32)
        if number == 3:
            whole: list[int] = []
            for n, _, item in _fields(content):
                if n == 1:
                    whole += _varints(item) if isinstance(item, memoryview) else [item]
            return np.array(whole, np.uint64).astype(np.int64)
    return []


def _messages(data: memoryview | bytes, wanted: int) -> Iterator[memoryview]:
    for number, wire, content in _fields(memoryview(data)):
        if number == wanted and wire == 2:
            assert isinstance(content, memoryview)
            yield content


def _fields(data: memoryview) -> Iterator[tuple[int, int, memoryview | int]]:
    """(field number, wire type, content): whole numbers, or the bytes of what is longer."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, wire, value
            continue
        size = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            size, at = _varint(data, at)
        if size is None or at + size > len(data):
            raise ValueError(f"wire type {wire} at byte {at} of {len(data)}")
        content = data[at : at + size]
        yield number, wire, struct.unpack("<I", content)[0] if wire == 5 else content
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _varints(data: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        values.append(value)
    return values
