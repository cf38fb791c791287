"""Keep the memory of large tensors between uses, where the C library allows it."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_DEFAULT_MMAP_MAX = 65536
SWEPT = 30.0
"""Seconds: to have a step's memory cleared anew takes a fraction of one."""


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
def all_blocks_kept(seconds: float = SWEPT) -> Iterator[Callable[[], None]]:
    """Within the block nothing is handed back, not even what is larger: each step of a training wants the same again.

    Logits and a vocabulary's gradient are above 32 MiB, and a step frees more than 1 GiB at once; on a CPU, to have
    that cleared anew is a good part of a step. But steps are of different sizes, and what is kept between them is
    scattered: it grows with the steps (7 GB after 25, 11 after 120 of a mid-training that needs six).

    Args:
        seconds: between two times that what is free is handed back all the same.

    Yields:
        What is to be called after each step.
    """
    due = time.monotonic() + seconds

    def swept() -> None:
        nonlocal due
        if time.monotonic() >= due:
            release_free_blocks()
            due = time.monotonic() + seconds

    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield swept
    finally:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_MMAP_MAX, _DEFAULT_MMAP_MAX)
        keep_large_blocks()
        release_free_blocks()


def release_free_blocks() -> None:
    """Hand back what is free; for the end of a stage, since the next one has other sizes or other processes."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
