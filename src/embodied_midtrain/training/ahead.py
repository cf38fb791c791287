"""Data made ready in a background thread, a few steps ahead of their use."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Calls `make(step)` for one step after the other in a thread of its own; `get` hands the results out in order.

    What is made is what it would be without the thread, as long as `make` keeps off the global random generators.

    Attributes:
        waited: seconds that `get` had to wait so far: the trainer's idle time.
    """

    def __init__(self, make: Callable[[int], T], end: int, depth: int = 3) -> None:
        """
        Args:
            end: the first step that does not exist.
            depth: steps that are kept ready at most.
        """
        self.waited = 0.0
        self._make = make
        self._end = end
        self._depth = depth
        self._next = -1
        self._stop = threading.Event()
        self._ready: queue.Queue[T | BaseException] = queue.Queue(depth)
        self._thread: threading.Thread | None = None

    def get(self, step: int) -> T:
        """The step's data; raises what making them raised. A step out of order starts the thread again from there."""
        if self._thread is None or step != self._next:
            self.close()
            self._stop = threading.Event()
            self._ready = queue.Queue(self._depth)
            self._thread = threading.Thread(target=self._work, args=(step, self._ready, self._stop), daemon=True)
            self._thread.start()
        started = time.perf_counter()
        item = self._ready.get()
        self.waited += time.perf_counter() - started
        self._next = step + 1
        if isinstance(item, BaseException):
            self.close()
            raise item
        return item

    def close(self) -> None:
        """End the thread; what it has made ready is dropped."""
        if self._thread is None:
            return
        self._stop.set()
        while self._thread.is_alive():
            # It may be waiting for room.
            try:
                self._ready.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread = None

    def _work(self, first: int, ready: queue.Queue[T | BaseException], stop: threading.Event) -> None:
        for step in range(first, self._end):
            if stop.is_set():
                return
            try:
                ready.put(self._make(step))
            except BaseException as error:
                ready.put(error)
                return

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
