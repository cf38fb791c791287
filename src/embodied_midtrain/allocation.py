"""Keep the memory of large tensors between uses, where the C library allows it."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator

import psutil

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_DEFAULT_MMAP_MAX = 65536
SWEPT = 30.0
"""Seconds: to have a step's memory cleared anew takes a fraction of one."""
GROWN = 2**30
"""Bytes that steps may scatter before that."""


def keep_large_blocks() -> None:
    """Tell glibc not to hand freed blocks of up to 32 MiB back to the kernel.

    By default it maps each large tensor anew, and the page faults take a third and more of the time of a forward
    pass on a CPU. At most 1 GiB that is free stays with the process. Elsewhere than on glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 1 << 25)
        mallopt(_TRIM_THRESHOLD, 1 << 30)
        mallopt(_TOP_PAD, 1 << 28)


@contextlib.contextmanager
def all_blocks_kept(seconds: float = SWEPT, grown: int = GROWN) -> Iterator[Callable[[], None]]:
    """Within the block nothing is handed back, not even what is larger: each step of a training wants the same again.

    Logits and a vocabulary's gradient are above 32 MiB, and a step frees more than 1 GiB at once; on a CPU, to have
    that cleared anew is a good part of a step. But steps differ in size, what is kept of one does not fit the next, and
    so a long training would hold more and more. Now and then what is free is handed back all the same.

    Args:
        seconds: after which that is done.
        grown: bytes by which the process has grown since the first step after the last time, whichever is first.

    Yields:
        What is to be called after each step.
    """
    process = psutil.Process()
    due, level = time.monotonic() + seconds, 0

    def step_ended() -> None:
        nonlocal due, level
        held = process.memory_info().rss
        if time.monotonic() >= due or (level and held > level + grown):
            release_free_blocks()
            due, level = time.monotonic() + seconds, 0
        else:
            level = level or held

    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield step_ended
    finally:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_MMAP_MAX, _DEFAULT_MMAP_MAX)
        keep_large_blocks()
        release_free_blocks()


def release_free_blocks() -> None:
    """Hand back what is free; for the end of a stage, since the next one has other sizes or other processes."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
