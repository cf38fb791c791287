"""Seconds and peak memory of each stage of a run, kept over interruptions."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from embodied_midtrain.artifacts import read_json, write_json
from embodied_midtrain.report.summary import StageTime

METER = "stages.json"
PERIOD = 0.5
"""Seconds between two looks at the memory."""


class Meter:
    """Times stages into RUN/stages.json: seconds add up over restarts, the peak is the highest seen."""

    def __init__(self, run: Path) -> None:
        self._path = run / METER
        self._rows: dict[str, dict] = read_json(self._path) if self._path.is_file() else {}

    def done(self, name: str) -> bool:
        return self._rows.get(name, {}).get("state") == "done"

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block; every half second the file says how far it is, so that a kill loses nothing."""
        earlier = self._rows.get(name, {"seconds": 0.0, "peak": 0})
        started, stop = time.monotonic(), threading.Event()

        def note(state: str, said: str = "") -> None:
            peak = max(self._rows.get(name, earlier)["peak"], tree_memory())
            seconds = round(earlier["seconds"] + time.monotonic() - started, 2)
            self._rows[name] = {"seconds": seconds, "peak": peak, "state": state, "note": said}

        def watch() -> None:
            written = time.monotonic()
            while not stop.wait(PERIOD):
                note("running")
                if time.monotonic() - written > 5:
                    # A full disk is for the stage to tell, not for its clock.
                    with contextlib.suppress(OSError, RuntimeError):
                        write_json(self._path, self._rows)
                    written = time.monotonic()

        note("running")
        write_json(self._path, self._rows)
        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        except BaseException as error:
            self._close(thread, stop)
            note("failed", str(error).splitlines()[0][:300] if str(error) else type(error).__name__)
            with contextlib.suppress(OSError, RuntimeError):
                write_json(self._path, self._rows)
            raise
        self._close(thread, stop)
        note("done")
        write_json(self._path, self._rows)

    @staticmethod
    def _close(thread: threading.Thread, stop: threading.Event) -> None:
        stop.set()
        thread.join()

    def times(self, names: Iterable[str]) -> tuple[StageTime, ...]:
        """Of those of these stages that were begun, in this order: the file's is that of the alphabet."""
        rows = ((name, self._rows[name]) for name in names if name in self._rows)
        return tuple(StageTime(name, row["seconds"], row["peak"], row["state"], row["note"]) for name, row in rows)


def tree_memory() -> int:
    """Resident bytes of this process and its children; pages that they share are counted once a process."""
    here = psutil.Process()
    total = 0
    for process in [here, *here.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total
