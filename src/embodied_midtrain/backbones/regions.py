"""How a backbone writes and reads places in an image.

Samples hold geometry in [0, 1]; each family of models has its own way to say it in text. A family without one of its
own gets whole percentages, "(37, 62)".
"""

from __future__ import annotations

import re

from embodied_midtrain.samples import Region, Turn


def percent(region: Region) -> str:
    """Two digits a value: (0.37, 0.618) -> "(37, 62)"; 1.0 is written 99."""
    return "(" + ", ".join(f"{min(round(100 * v), 99):02d}" for v in region.values) + ")"


def read_percent(text: str, count: int = 2) -> tuple[float, ...] | None:
    """The first `count` numbers in brackets, in [0, 1]; None where there are none."""
    found = re.search(r"\(\s*" + r"\s*,\s*".join([r"(\d{1,2})"] * count) + r"\s*\)", text)
    return tuple(int(v) / 100 for v in found.groups()) if found else None


def write_regions(turn: Turn) -> str:
    """The turn's text, each region mark replaced in order."""
    return turn.written(percent)
