"""The protocols that come with the package, against vla-eval's own classes."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from vla_eval.cli.config_loader import load_config
from vla_eval.cli.smoke import run_validate, smoke_test_from_path
from vla_eval.registry import resolve_import_string
from vla_eval.specs import DimSpec, check_specs

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.cli import main
from embodied_midtrain.config import ConfigError
from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.robots.hdf5 import ROBOSUITE_POSE
from embodied_midtrain.robots.known import KNOWN
from embodied_midtrain.serving import gr1
from embodied_midtrain.serving.components import components
from embodied_midtrain.serving.player import Player
from embodied_midtrain.serving.protocol import open_protocol, protocol_names, protocol_of
from tests.serving.conftest import Plain

EPISODES = {
    "calvin_abc_d": (1000, 360),
    "libero_10": (500, 520),
    "robocasa_gr1": (1200, 720),
    "simpler_bridge": (96, 60),
}


def test_these_come_with_the_package():
    assert protocol_names() == sorted(EPISODES)
    for name, (episodes, steps) in EPISODES.items():
        own = open_protocol(name).settings
        assert (own.episodes, own.steps) == (episodes, steps)


@pytest.mark.parametrize("name", EPISODES)
def test_vla_eval_takes_the_file_and_its_benchmark_what_is_announced(name):
    evaluation = open_protocol(name)
    result = run_validate([smoke_test_from_path(evaluation.path)])
    assert result.status == "pass", result.message
    player = Player(Plain(spec=evaluation.spec), evaluation=evaluation)
    config = load_config(str(evaluation.path))
    for entry in config["benchmarks"]:
        benchmark = resolve_import_string(entry["benchmark"])(**entry["params"])
        actions, looks = player.get_action_spec(), player.get_observation_spec()
        assert check_specs(actions, benchmark.get_action_spec(), looks, benchmark.get_observation_spec()) == []
        assert protocol_of(entry["benchmark"]).name == name
    total = sum(entry["episodes_per_task"] * _tasks(name) for entry in config["benchmarks"])
    assert total == evaluation.settings.episodes


def _tasks(name):
    return {"calvin_abc_d": 1000, "libero_10": 10, "robocasa_gr1": len(gr1.TASKS)}.get(name, 1)


def test_the_specs_are_those_of_the_data():
    assert open_protocol("libero-10").spec == ROBOSUITE_POSE
    for name, data in (("calvin_abc_d", "calvin"), ("simpler_bridge", "bridge_orig")):
        with pytest.raises(StageError, match="--convert converts them"):
            open_protocol(name).check(KNOWN[data], convert=False, policy="it")
        open_protocol(name).check(KNOWN[data], convert=True, policy="it")
    assert open_protocol("robocasa_gr1").spec.width == gr1.WIDTH == 29


def test_what_cannot_be_converted_is_said():
    libero = open_protocol("libero_10")
    with pytest.raises(StageError, match=r"cannot become those of LIBERO-10: 20 actions a second|cannot become"):
        libero.check(replace(libero.spec, rate=10.0), convert=True, policy="it")
    with pytest.raises(StageError, match="40 actions a second are not 20"):
        libero.check(replace(libero.spec, rate=40.0), convert=True, policy="it")
    with pytest.raises(StageError, match="kind: 'delta' against 'absolute'") as refused:
        libero.check(replace(libero.spec, kind="absolute"), convert=False, policy="it")
    assert "--convert" not in str(refused.value)


def test_mistakes_in_a_file_are_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="did you mean 'libero_10'"):
        open_protocol("libero10")
    good = yaml.safe_load(open_protocol("libero_10").path.read_text())

    def written(**changes):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({**good, **changes}))
        return str(path)

    assert open_protocol(written()).spec == open_protocol("libero_10").spec
    with pytest.raises(ConfigError, match="does not say what an action means"):
        (tmp_path / "bare.yaml").write_text("benchmarks: []\n")
        open_protocol(str(tmp_path / "bare.yaml"))
    with pytest.raises(ConfigError, match="unknown key 'camra'; did you mean 'camera'"):
        open_protocol(written(emt={**good["emt"], "camra": "x"}))
    with pytest.raises(ConfigError, match=r"emt\.spec: it lacks rate"):
        spec = {k: v for k, v in good["emt"]["spec"].items() if k != "rate"}
        open_protocol(written(emt={**good["emt"], "spec": spec}))
    with pytest.raises(ConfigError, match="wanted at least one"):
        open_protocol(written(benchmarks=[]))
    with pytest.raises(ConfigError, match="executed must be 1 to chunk"):
        open_protocol(written(emt={**good["emt"], "executed": 9}))


def test_specs_in_its_words():
    rows = components(ROBOSUITE_POSE)
    assert [DimSpec.from_dict(row).format for row in rows.values()] == [
        "delta_xyz", "axis_angle", "binary_close_positive",
    ]  # fmt: skip
    joints = ActionSpec(("a", "b"), "absolute", "joint", "none", None, 1, (-math.inf,) * 2, (math.inf,) * 2, 5.0)
    assert components(joints) == {"actions": {"name": "actions", "dims": 2, "format": "absolute_joint"}}


class FakeKitchen:
    def __init__(self, name):
        self.name, self.actions = name, []

    def reset(self, seed):
        self.seed = seed
        return self._look(), {}

    def step(self, action):
        self.actions.append(action)
        return self._look(), 0.0, False, False, {"success": np.array([len(self.actions) == 3])}

    def _look(self):
        video = np.full((1, 256, 256, 3), 7, np.uint8)
        return {"video.ego_view_bg_crop_pad_res256_freq20": video, "annotation.human.coarse_action": ["pick the cup"]}

    def close(self):
        pass


def test_gr1_speaks_the_environments_language(monkeypatch):
    import asyncio
    import sys
    import types

    import gymnasium

    made = []
    monkeypatch.setattr(gymnasium, "make", lambda name, **_: made.append(FakeKitchen(name)) or made[-1])
    for module in ("robocasa", "robosuite"):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    benchmark = gr1.RoboCasaGR1(tasks=["PnPCanToDrawerClose"], seed=5)

    async def episode():
        task = {**benchmark.get_tasks()[0], "episode_idx": 2}
        await benchmark.start_episode(task)
        look = await benchmark.get_observation()
        assert look["images"]["ego_view"].shape == (256, 256, 3) and look["task_description"] == "pick the cup"
        while not await benchmark.is_done():
            await benchmark.apply_action({"actions": np.arange(29)})
        return await benchmark.get_result()

    assert asyncio.run(episode()) == {"success": True}
    env = made[0]
    assert env.name == "gr1_unified/PnPCanToDrawerClose_GR1ArmsAndWaistFourierHands_Env" and env.seed == 7
    assert len(env.actions) == 3 and env.actions[0]["action.waist"].tolist() == [26, 27, 28]
    with pytest.raises(ValueError, match="has no task Fly"):
        gr1.RoboCasaGR1(tasks=["Fly"])
    with pytest.raises(ValueError, match="29 numbers"):
        benchmark.step({"actions": np.zeros(7)})


def test_the_command_says_what_is_wrong(capsys, tmp_path):
    assert main(["serve", "--list-benchmarks"]) == 0
    assert "LIBERO-10: 500 episodes, 520 steps" in capsys.readouterr().out
    assert main(["serve"]) == 1
    assert "which policy?" in capsys.readouterr().err
    assert main(["serve", str(tmp_path)]) == 1
    assert "is no policy" in capsys.readouterr().err
    assert main(["serve", str(tmp_path), "--port", "-1"]) == 1
    assert main(["serve", str(tmp_path), "--benchmark", "liberro-10"]) == 1
    assert "did you mean 'libero_10'" in capsys.readouterr().err
