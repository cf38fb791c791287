"""One number out of a stage's folder, by the place that a study's measure names."""

from __future__ import annotations

import math
from pathlib import Path

from embodied_midtrain.artifacts import read_json


def figure(folder: Path, where: str) -> float | None:
    """What stands at FILE:KEY.KEY, None where that is no number; keys of lists are numbers, negative from the end.

    Raises:
        StageError: where the file is missing or not JSON.
    """
    file, _, path = where.partition(":")
    value = read_json(folder / file)
    try:
        for key in path.split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]
        number = float(value)
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
