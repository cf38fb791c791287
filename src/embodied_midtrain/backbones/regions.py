"""How a backbone writes and reads places in an image.

Samples hold geometry in [0, 1]; each family of models has its own way to say it in text. A family without one of its
own gets whole percentages, "(37, 62)".
"""

from __future__ import annotations

import re

from embodied_midtrain.samples import Region


def percent(region: Region) -> str:
    """Two digits a value: (0.37, 0.618) -> "(37, 62)"; 1.0 is written 99."""
    return "(" + ", ".join(f"{min(round(100 * v), 99):02d}" for v in region.values) + ")"


def read_percent(text: str, count: int = 2) -> tuple[float, ...] | None:
    """The first `count` numbers in brackets, in [0, 1]; None where there are none."""
    found = re.search(r"\(\s*" + r"\s*,\s*".join([r"(\d{1,2})"] * count) + r"\s*\)", text)
    return tuple(int(v) / 100 for v in found.groups()) if found else None


def thousandths(region: Region) -> str:
    """Of the picture's sides, 0 to 1000: (0.37, 0.618) -> "[370, 618]"."""
    return str([round(1000 * v) for v in region.values])


def pixels(region: Region, size: tuple[int, int]) -> str:
    """Whole pixels of a picture of `size` (width, height): (0.5, 0.25) of 448 x 224 -> "[224, 56]"."""
    return str([min(round(v * size[n % 2]), size[n % 2] - 1) for n, v in enumerate(region.values)])


def location_tokens(region: Region) -> str:
    """One token "<loc0000>" to "<loc1023>" a value, y before x: (0.0, 1.0) -> "<loc1023><loc0000>"."""
    pairs = [region.values[n : n + 2] for n in range(0, len(region.values), 2)]
    return "".join(f"<loc{round(1023 * v):04d}>" for x, y in pairs for v in (y, x))
