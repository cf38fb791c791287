"""Qt resource files (.rcc): a directory tree and its data in one binary file.

The layout is that of Qt's `rcc --binary` (qtbase src/tools/rcc/rcc.cpp), versions 1 to 3: "qres", then big-endian
version and the offsets of tree, data and names. A tree node is the offset of its name, flags, and either count and
number of the first child (folder) or locale and data offset (file); from version 2 on a time stamp follows.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_COMPRESSED, _FOLDER, _ZSTD = 1, 2, 4
_MOST_FILES = 100_000


class BadResource(ValueError):
    """Not a readable Qt resource file."""


def read_rcc(blob: bytes) -> Iterator[tuple[str, bytes]]:
    """All files of a resource file as (path, content). Zstandard-compressed ones are left out.

    Raises:
        BadResource: where the file is damaged or of an unknown version.
    """
    try:
        magic, version, tree, data, names = struct.unpack_from(">4s4I", blob, 0)
        if magic != b"qres" or version not in (1, 2, 3):
            raise BadResource("not a Qt resource file of version 1 to 3")
        node_size = 14 if version == 1 else 22
        # (node, folder path); a damaged tree may have cycles and absurd counts, hence the bounds.
        todo, seen = [(0, "")], 0
        while todo:
            node, path = todo.pop()
            seen += 1
            if seen > _MOST_FILES:
                raise BadResource("its tree has no end")
            name_at, flags = struct.unpack_from(">IH", blob, tree + node * node_size)
            first, second = struct.unpack_from(">II", blob, tree + node * node_size + 6)
            if node:
                path += _name(blob, names + name_at)
            if flags & _FOLDER:
                if first + len(todo) > _MOST_FILES:
                    raise BadResource(f"a folder in it claims {first} files")
                todo += [(second + i, f"{path}/" if node else "") for i in reversed(range(first))]
            elif not flags & _ZSTD:
                yield path, _content(blob, data + second, bool(flags & _COMPRESSED))
    except (struct.error, zlib.error, UnicodeDecodeError) as error:
        raise BadResource(str(error)) from error


def _name(blob: bytes, at: int) -> str:
    """Length in UTF-16 units, a hash, the text."""
    (length,) = struct.unpack_from(">H", blob, at)
    return blob[at + 6 : at + 6 + 2 * length].decode("utf-16-be")


def _content(blob: bytes, at: int, compressed: bool) -> bytes:
    (size,) = struct.unpack_from(">I", blob, at)
    if at + 4 + size > len(blob):
        raise BadResource("a file in it is cut off")
    content = blob[at + 4 : at + 4 + size]
    # Qt's qCompress puts the plain size before the zlib stream.
    return zlib.decompress(content[4:]) if compressed else content
