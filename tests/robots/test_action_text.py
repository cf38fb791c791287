import numpy as np
import pytest

from embodied_midtrain.artifacts import Skips, StageError, read_json
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.midtraining.midtrain import MidtrainConfig, midtrain
from embodied_midtrain.robots.action_text import ActionTextConfig, action_text, robots_as_text
from embodied_midtrain.robots.actions import ActionNormaliser
from embodied_midtrain.sources.opening import open_pool
from tests.midtraining.test_midtrain import FROZEN_VISION
from tests.tiny import Dots, backbone


def test_frames_become_questions(tmp_path):
    artifact = robots_as_text(tmp_path / "out", ActionTextConfig(frames_per_episode=3), target=Dots())
    samples = list(open_pool(tmp_path / "out", skips=Skips()))
    assert len(samples) == artifact.counts["used"] == 18
    episodes = list(Dots())
    low, high = np.quantile(np.concatenate([e.actions for e in episodes]), [0.01, 0.99], axis=0)
    wanted = np.clip((episodes[0].actions[0] - low) / np.maximum(high - low, 2e-3) * 256, 0, 255).astype(int)
    assert samples[0].answer == " ".join(map(str, wanted))
    assert samples[0].turns[0].text == "What action should the robotic arm take to go right"
    assert np.array_equal(np.asarray(samples[0].pictures[0].decode()), episodes[0].frames[0])
    assert read_json(artifact.file("actions.json"))["bins"] == 256


def test_numbers_say_the_action_back():
    actions = np.random.default_rng(0).uniform(-1, 1, (200, 4)).astype(np.float32)
    normaliser = ActionNormaliser.fit([actions])
    for action in actions:
        bins = np.array([int(word) for word in action_text(action, normaliser, 256).split()])
        back = normaliser.invert((((bins + 0.5) / 256) * 2 - 1).astype(np.float32)[None])[0]
        inside = np.abs(normaliser.apply(action[None])[0]) <= 1
        assert (np.abs(back - action)[inside] <= 0.5 / 256 * 2.1).all()


def test_a_backbone_is_tuned_on_the_whole_of_it(tmp_path):
    robots_as_text(tmp_path / "pool", ActionTextConfig(), target=Dots())
    tuned = midtrain(
        tmp_path / "out", MidtrainConfig(**FROZEN_VISION), backbone=backbone("compact"), pool=tmp_path / "pool"
    )
    assert tuned.counts["selected"] == 48 and load_backbone(tuned.file("model"))


def test_nothing_to_write(tmp_path):
    class Empty(Dots):
        def __iter__(self):
            return iter(())

    with pytest.raises(StageError, match="no episode that can be used"):
        robots_as_text(tmp_path / "out", ActionTextConfig(), target=Empty())
    with pytest.raises(ValueError, match="at least 2 and 1"):
        robots_as_text(tmp_path / "out", ActionTextConfig(bins=1), target=Dots())
