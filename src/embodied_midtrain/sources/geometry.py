"""Points and boxes that a data set writes as text, lifted out of it as geometry in [0, 1].

So that each backbone is then given them in its own convention. What does not parse stays text.
"""

from __future__ import annotations

import re
from typing import Literal

from embodied_midtrain.samples import REGION_MARK, BadSample, Region

Convention = Literal["none", "unit", "thousand"]
"""How a data set writes coordinates: not at all (or: leave its text alone), in [0, 1], or in 0 to 1000."""

_UNIT = r"\s*((?:0|1)?\.\d+|[01](?:\.0*)?)\s*"
_THOUSAND = r"\s*(\d{1,4})\s*"


def _pattern(number: str) -> re.Pattern[str]:
    def row(count: int) -> str:
        return ",".join([number] * count)

    # A box is four numbers in brackets of either kind, or two points in the tags of Qwen-VL; a point is two in round
    # ones: "[0.2, 0.4]" might as well be a list of measures.
    return re.compile(rf"<box>\s*\({row(2)}\)\s*,\s*\({row(2)}\)\s*</box>|\[{row(4)}\]|\({row(4)}\)|\({row(2)}\)")


_PATTERNS = {"unit": _pattern(_UNIT), "thousand": _pattern(_THOUSAND)}
_SCALE = {"unit": 1.0, "thousand": 1000.0}


def lift(text: str, convention: Convention) -> tuple[str, tuple[Region, ...]]:
    """The text with a mark in place of each point and box, and these in order.

    Raises:
        BadSample: where the text holds the mark itself.
    """
    if REGION_MARK in text:
        raise BadSample("bad geometry", f"the text holds {REGION_MARK}, which stands for geometry here")
    if convention == "none":
        return text, ()
    regions: list[Region] = []

    def mark(found: re.Match[str]) -> str:
        written = [group for group in found.groups() if group is not None]
        # (1, 0) is a pair of whole numbers as often as a corner of the image.
        if convention == "unit" and not any("." in number for number in written):
            return found[0]
        values = tuple(float(number) / _SCALE[convention] for number in written)
        ordered = len(values) == 2 or (values[0] <= values[2] and values[1] <= values[3])
        if not ordered or any(value > 1.0 for value in values):
            return found[0]
        regions.append(Region("point" if len(values) == 2 else "box", values))
        return REGION_MARK

    return _PATTERNS[convention].sub(mark, text), tuple(regions)
