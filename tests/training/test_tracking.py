import importlib.util

import pytest

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.training.tracking import AccelerateTracker


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_tracker_is_an_error_that_names_its_extra(tmp_path, name):
    if importlib.util.find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    with pytest.raises(StageError, match=rf"embodied-midtrain\[{name}\]"):
        AccelerateTracker(name, "midtrain", tmp_path, {})


def test_tensorboard_is_told(tmp_path):
    pytest.importorskip("tensorboard")
    tracker = AccelerateTracker("tensorboard", "midtrain", tmp_path, {"lr": 0.1, "train": ["language"]})
    tracker.log({"loss": 0.5}, 0)
    tracker.finish()
    assert list(tmp_path.rglob("events.out*"))
