"""Memory that is free goes back to the machine when it is asked for."""

import sys

import numpy as np
import psutil
import pytest

from embodied_midtrain.allocation import release_free_blocks


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_free_blocks_are_handed_back():
    # Many blocks below the size that is mapped one by one, the last one in use: the heap cannot shrink by itself.
    blocks = [np.ones(64 * 1024, np.uint8) for _ in range(4000)]
    last = blocks[-1]
    full = psutil.Process().memory_info().rss
    del blocks
    release_free_blocks()
    assert last.size and psutil.Process().memory_info().rss < full - 100 * 2**20
