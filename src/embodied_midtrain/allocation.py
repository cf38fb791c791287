"""Keep the memory of large tensors between uses, where the C library allows it."""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


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


def release_free_blocks() -> None:
    """Hand back what is free; for the end of a stage, since the next one has other sizes or other processes."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
