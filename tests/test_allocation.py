"""Memory that is free goes back to the machine when it is asked for.

Each in a process of its own: how the heap of this one lies is up to the tests before.
"""

import multiprocessing
import sys
from collections.abc import Callable

import numpy as np
import psutil
import pytest

from embodied_midtrain.allocation import all_blocks_kept, release_free_blocks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")


def alone(check: Callable[..., None], *arguments: object) -> None:
    """Raises what it raises there."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(check, arguments)


def there() -> int:
    return int(psutil.Process().memory_info().rss)


def _handed_back() -> None:
    # Many blocks below the size that is mapped one by one, the last one in use: the heap cannot shrink by itself.
    blocks = [np.ones(64 * 1024, np.uint8) for _ in range(4000)]
    last, full = blocks[-1], there()
    del blocks
    release_free_blocks()
    assert last.size and there() < full - 100 * 2**20


def _kept() -> None:
    before = there()
    with all_blocks_kept():
        block = np.ones(200 * 2**20, np.uint8)
        assert block.size and there() > before + 150 * 2**20
        del block
        assert there() > before + 150 * 2**20
    assert there() < before + 50 * 2**20


def _kept_until(seconds: float, grown: int, stays: bool) -> None:
    before = there()
    with all_blocks_kept(seconds, grown) as step_ended:
        if seconds:
            step_ended()
        block, last = np.ones(200 * 2**20, np.uint8), np.ones(2**20, np.uint8)
        assert block.size and there() > before + 150 * 2**20
        del block
        step_ended()
        assert last.size and (there() > before + 150 * 2**20) is stays


def test_free_blocks_are_handed_back() -> None:
    alone(_handed_back)


def test_within_a_training_large_blocks_stay() -> None:
    alone(_kept)


@pytest.mark.parametrize(
    "seconds, grown, stays", [(60.0, 2**30, True), (0.0, 2**30, False), (60.0, 100 * 2**20, False)]
)
def test_what_is_free_goes_back_when_it_is_due(seconds: float, grown: int, stays: bool) -> None:
    alone(_kept_until, seconds, grown, stays)
