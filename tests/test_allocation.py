"""Memory that is free goes back to the machine when it is asked for."""

import sys

import numpy as np
import psutil
import pytest

from embodied_midtrain.allocation import all_blocks_kept, release_free_blocks


def there() -> int:
    return int(psutil.Process().memory_info().rss)


def lean() -> int:
    """What is there when nothing is left of earlier tests that a block could come from."""
    release_free_blocks()
    return there()


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_free_blocks_are_handed_back():
    # Many blocks below the size that is mapped one by one, the last one in use: the heap cannot shrink by itself.
    blocks = [np.ones(64 * 1024, np.uint8) for _ in range(4000)]
    last = blocks[-1]
    full = psutil.Process().memory_info().rss
    del blocks
    release_free_blocks()
    assert last.size and psutil.Process().memory_info().rss < full - 100 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_within_a_training_large_blocks_stay():
    before = lean()
    with all_blocks_kept():
        block = np.ones(200 * 2**20, np.uint8)
        assert block.size and there() > before + 150 * 2**20
        del block
        assert there() > before + 150 * 2**20
    assert there() < before + 50 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_what_is_free_goes_back_when_it_is_due():
    for seconds, grown, stays in ((60.0, 2**30, True), (0.0, 2**30, False), (60.0, 100 * 2**20, False)):
        before = lean()
        with all_blocks_kept(seconds, grown) as step_ended:
            if seconds:
                step_ended()
            block, last = np.ones(200 * 2**20, np.uint8), np.ones(2**20, np.uint8)
            assert block.size and there() > before + 150 * 2**20
            del block
            step_ended()
            assert last.size and (there() > before + 150 * 2**20) is stays
