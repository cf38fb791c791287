"""Running out of memory as an error that says what to change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from embodied_midtrain.artifacts import StageError


@contextlib.contextmanager
def advising(advice: str) -> Iterator[None]:
    """Turn an out-of-memory error of the block into a `StageError` with `advice`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        first = (str(error).splitlines() or ["out of memory"])[0]
        raise StageError(
            f"out of memory: {first}\n{advice} The same command goes on from the last checkpoint."
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the GPU or the machine, is used up."""
    # The CPU allocator says it in words only.
    words = ("out of memory", "can't allocate memory", "DefaultCPUAllocator: not enough memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in words)
