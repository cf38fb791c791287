import time
from pathlib import Path

import numpy as np
import pytest

from embodied_midtrain.recipes import meter as module
from embodied_midtrain.recipes.meter import Meter


def test_seconds_add_up_over_restarts_and_the_peak_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PERIOD", 0.02)
    with pytest.raises(RuntimeError), Meter(tmp_path).stage("work"):
        block = np.ones(40_000_000, np.uint8)
        time.sleep(0.1)
        assert block.sum()
        raise RuntimeError("half way\nmore")
    (first,) = Meter(tmp_path).times(["work"])
    assert (first.state, first.note) == ("failed", "half way") and first.seconds >= 0.1
    del block
    again = Meter(tmp_path)
    assert not again.done("work")
    with again.stage("work"):
        time.sleep(0.05)
    with again.stage("after"):
        pass
    row, after = Meter(tmp_path).times(["other", "work", "after"])
    assert after.name == "after", "in the order of the recipe"
    assert row.state == "done" and row.seconds > first.seconds + 0.04
    assert row.peak_memory_bytes is not None and first.peak_memory_bytes is not None
    assert row.peak_memory_bytes >= first.peak_memory_bytes > 40_000_000
