"""How fast a long stage is and when it ends: beside its bar, and as JSON for whoever watches from elsewhere."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from embodied_midtrain.artifacts import write_json


@dataclass(frozen=True)
class Progress:
    rows: int
    """Embedded so far, also by runs before this one."""
    skipped: int
    rows_per_second: float
    total: int | None
    seconds_left: float | None


class Pace:
    """Counts rows of this run, and writes `Progress` to a file at most once a second."""

    def __init__(self, path: Path, total: int | None) -> None:
        self._path = path
        self._total = total
        self._started = self._written = time.monotonic()
        self._computed = 0

    def add(self, computed: int, used: int, skipped: int) -> str:
        """Count `computed` more rows; a line for the bar."""
        self._computed += computed
        rate = self._computed / max(1e-9, time.monotonic() - self._started)
        if time.monotonic() - self._written >= 1:
            self.write(used, skipped)
        return f"{rate:.1f} rows/s, {skipped} skipped"

    def write(self, used: int, skipped: int) -> None:
        """Write where it stands now."""
        self._written = time.monotonic()
        rate = self._computed / max(1e-9, self._written - self._started)
        left = None
        if self._total is not None and rate:
            left = round(max(0, self._total - used - skipped) / rate, 1)
        write_json(self._path, asdict(Progress(used, skipped, round(rate, 2), self._total, left)))
