import json

import numpy as np
import pytest

from embodied_midtrain.episodes import ActionSpec, BadEpisode, Episode, chunk_at, target_prompt

SPEC = ActionSpec(("x", "y", "gripper"), "delta", "world", "none", 2, 1, (-1.0,) * 3, (1.0,) * 3, 20.0)


def episode(**changes: object) -> Episode:
    values = {
        "id": "1",
        "task": "t",
        "instruction": "go",
        "frames": np.zeros((4, 8, 8, 3), np.uint8),
        "actions": np.zeros((4, 3), np.float32),
    }
    return Episode(**{**values, **changes})  # type: ignore[arg-type]


def test_specs_compare_by_field_and_round_trip() -> None:
    other = ActionSpec.from_json(json.loads(json.dumps(SPEC.to_json())))
    assert other == SPEC and SPEC.differences(other) == []
    flipped = ActionSpec.from_json({**SPEC.to_json(), "gripper_closed": -1})
    assert SPEC.differences(flipped) == ["gripper_closed: 1 against -1"]
    assert SPEC.arm == (0, 1)
    with pytest.raises(ValueError, match="3 names, 2 low"):
        ActionSpec.from_json({**SPEC.to_json(), "low": [0, 0]})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"frames": np.zeros((4, 8, 8), np.uint8)}, "bad frames"),
        ({"actions": np.zeros((4, 2), np.float32)}, "bad actions"),
        ({"actions": np.zeros((3, 3), np.float32)}, "uneven"),
        ({"actions": np.full((4, 3), np.nan, np.float32)}, "nan action"),
        ({"instruction": " "}, "no instruction"),
        ({"frames": np.zeros((0, 8, 8, 3), np.uint8), "actions": np.zeros((0, 3), np.float32)}, "empty"),
    ],
)
def test_bad_episodes_are_named(changes: dict, reason: str) -> None:
    with pytest.raises(BadEpisode, match=reason):
        episode(**changes).check(SPEC)
    episode().check(SPEC)


def test_chunks_repeat_the_last_action() -> None:
    actions = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert chunk_at(actions, 1, 4)[:, 0].tolist() == [2, 4, 4, 4]


def test_prompts_need_the_instruction() -> None:
    assert target_prompt("open it", "do: {instruction}") == "do: open it"
    with pytest.raises(ValueError, match=r"needs an .instruction"):
        target_prompt("open it", "do it")
