"""The commands for vla-eval, and what it writes: its aggregates as version 0.8 has them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from embodied_midtrain.artifacts import StageError, open_stage, write_json
from embodied_midtrain.recipes.benchmarks import RobotBenchmark
from embodied_midtrain.recipes.vla_eval import COMMANDS, PROTOCOL, Played, read_played, results_of, write_orders
from embodied_midtrain.serving.protocol import open_protocol

CALVIN = RobotBenchmark(target=Path("x"), chunk=10, executed=10, protocol="calvin-abc-d", convert=True)
BRIDGE = RobotBenchmark(target=Path("x"), chunk=4, executed=4, protocol="simpler-bridge")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    with open_stage(tmp_path / "policy", "finetune", {}, {}) as run:
        write_json(run.file("x.json"), {})
        run.finish({})
    return tmp_path / "policy"


def aggregate(folder: Path, name: str, tasks: dict[str, list[dict[str, Any]]], **more: Any) -> None:
    rows = [
        {"task": task, "episodes": [{"episode_id": n, "metrics": m, "steps": 9} for n, m in enumerate(episodes)]}
        for task, episodes in tasks.items()
    ]
    folder.mkdir(exist_ok=True)
    (folder / f"{name}_aggregate.json").write_text(json.dumps({"benchmark": name, "tasks": rows, **more}))


def test_the_commands_name_a_config_of_this_policy_alone(tmp_path: Path, policy: Path) -> None:
    folder = tmp_path / "vla-eval"
    serve, play = write_orders(folder, policy, CALVIN, 0.01)
    assert serve.startswith("emt serve ") and serve.endswith("--convert")
    assert play == f"vla-eval run --config {folder / PROTOCOL}"
    assert (folder / COMMANDS).read_text().splitlines() == [serve, play]
    values = yaml.safe_load((folder / PROTOCOL).read_text())
    assert values["output_dir"] == str(results_of(folder, policy))
    (entry,) = values["benchmarks"]
    assert (entry["episodes_per_task"], entry["params"]["num_sequences"]) == (1, 10)
    # `emt serve --benchmark FILE` reads it.
    assert open_protocol(str(folder / PROTOCOL)).spec == open_protocol("calvin-abc-d").spec
    assert not write_orders(folder, policy, BRIDGE)[0].endswith("--convert")


def test_calvins_sequences_are_episodes_with_a_length(tmp_path: Path, policy: Path) -> None:
    folder = tmp_path / "vla-eval"
    assert read_played(folder, policy) == Played()
    write_orders(folder, policy, CALVIN)
    assert not read_played(folder, policy).complete
    tasks = {f"seq_{n:04d}": [{"success": n == 2, "completed_subtasks": [5, 0, 3][n - 2]}] for n in (2, 3, 4)}
    aggregate(results_of(folder, policy), "calvin", tasks)
    found = read_played(folder, policy)
    assert found.complete and found.lengths == (5.0, 0.0, 3.0)
    assert [(e.task, e.state, e.success, e.steps) for e in found.episodes] == [
        ("calvin", 2, True, 9),
        ("calvin", 3, False, 9),
        ("calvin", 4, False, 9),
    ]


def test_tasks_of_one_episode_each_stay_tasks(tmp_path: Path, policy: Path) -> None:
    folder = tmp_path / "vla-eval"
    write_orders(folder, policy, replace(BRIDGE, protocol="libero-10"), 0.01)
    names = ["put both moka pots on the stove", "turn on the stove", "close it 2"]
    aggregate(results_of(folder, policy), "libero", {name: [{"success": True}] for name in names})
    assert [(e.task, e.state) for e in read_played(folder, policy).episodes] == [(name, 0) for name in names]


def test_a_benchmark_is_done_when_all_of_its_files_are(tmp_path: Path, policy: Path) -> None:
    folder = tmp_path / "vla-eval"
    write_orders(folder, policy, BRIDGE)
    out = results_of(folder, policy)
    for n in range(3):
        aggregate(out, f"task{n}", {f"put_{n}": [{"success": True}, {"success": False}]})
    assert not read_played(folder, policy).complete
    aggregate(out, "task3", {"put_3": [{"success": True}]}, partial=True)
    assert not read_played(folder, policy).complete
    aggregate(out, "task3", {"put_3": [{"success": True}, {"success": True}]})
    found = read_played(folder, policy)
    assert found.complete and sum(e.success for e in found.episodes) == 5 and not found.lengths
    assert len({(e.task, e.state) for e in found.episodes}) == 8
    (out / "task3_aggregate.json").write_text('{"tasks": [{"task": 1}]}')
    with pytest.raises(StageError, match=r"task3_aggregate.json is no result of vla-eval"):
        read_played(folder, policy)
