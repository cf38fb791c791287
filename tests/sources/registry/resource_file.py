"""Writes small Qt resource files, byte by byte."""

import struct
import zlib


def make_rcc(files: dict[str, bytes], *, compress: bool = False, version: int = 3) -> bytes:
    """A resource file with all files in one folder, "pics"."""
    names, data, nodes = b"", b"", []

    def name(text: str) -> int:
        nonlocal names
        at = len(names)
        names += struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")
        return at

    stamp = b"" if version == 1 else bytes(8)
    nodes.append(struct.pack(">IHII", 0, 2, 1, 1) + stamp)
    nodes.append(struct.pack(">IHII", name("pics"), 2, len(files), 2) + stamp)
    for path, content in files.items():
        stored = struct.pack(">I", len(content)) + zlib.compress(content) if compress else content
        nodes.append(struct.pack(">IHII", name(path), 1 if compress else 0, 0, len(data)) + stamp)
        data += struct.pack(">I", len(stored)) + stored
    head = 20
    return (
        struct.pack(">4s4I", b"qres", version, head + len(data) + len(names), head, head + len(data))
        + data
        + names
        + b"".join(nodes)
    )
