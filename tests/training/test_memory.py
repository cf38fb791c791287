import pytest
import torch

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.training.memory import advising


def test_out_of_memory_becomes_advice():
    with pytest.raises(StageError, match=r"(?s)out of memory.*Lower window"), advising("Lower window."):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    with pytest.raises(StageError, match="Lower window"), advising("Lower window."):
        # Far beyond any machine's address space: the real error of the CPU's allocator.
        torch.empty(1 << 60, dtype=torch.uint8)


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes"), advising("Lower window."):
        raise RuntimeError("shapes differ")
