"""The same policy, the same initial states, in the built-in LIBERO loop and in vla-eval's: the same to the last bit."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from anyio.from_thread import start_blocking_portal
from vla_eval import run as run_vla_eval

from embodied_midtrain.benchmarks.protocol import evaluation_state, open_benchmark
from embodied_midtrain.benchmarks.rollout import RolloutConfig, read_episodes, rollout
from embodied_midtrain.episodes import chunk_at
from embodied_midtrain.policies.finetune import FinetuneConfig, finetune
from embodied_midtrain.policies.opening import load_actor
from embodied_midtrain.robots.hdf5 import ROBOSUITE_POSE
from embodied_midtrain.serving.player import Player
from embodied_midtrain.serving.protocol import protocol_of
from embodied_midtrain.serving.server import serve_async
from tests.policies.test_finetune import SMALL
from tests.tiny import Dots, backbone

SUITE, STEPS, EPISODES, SIDE = "libero_object", 25, 2, 64


class Arms(Dots):
    """The dots' motions as a LIBERO arm's."""

    spec = ROBOSUITE_POSE

    def __init__(self):
        super().__init__(side=SIDE)
        rng = np.random.default_rng(1)
        self.episodes = [
            replace(e, actions=np.hstack([e.actions[:, :2], rng.uniform(-1, 1, (8, 5)).astype(np.float32)]))
            for e in self.episodes
        ]


class Watched:
    """A policy that keeps what it was shown and what it said."""

    def __init__(self, actor):
        self._actor, self.seen, self.said = actor, [], []

    def __getattr__(self, name):
        return getattr(self._actor, name)

    def act(self, frames, instructions):
        actions = self._actor.act(frames, instructions)
        self.seen.append((frames.copy(), list(instructions)))
        self.said.append(actions)
        return actions


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    finetune(folder / "out", FinetuneConfig(**SMALL), backbone=backbone("compact"), demos=Arms())
    return folder / "out"


@dataclass
class Replay:
    """Plays recorded actions, whatever it is shown."""

    chunks: list
    spec: object = ROBOSUITE_POSE
    chunk: int = 10
    executed: int = 10
    size: int = SIDE
    identity: str = "replay"

    def act(self, frames, instructions):
        assert len(frames) == 1
        return self.chunks.pop(0)[None]


def expert_chunks(benchmark, task):
    """What the scripted expert does in each episode, and whether and when that solves it."""
    chunks, solved = [], []
    simulation = benchmark.make(task, SIDE)
    for number in range(EPISODES):
        simulation.reset(evaluation_state(number))
        actions, done = [], False
        while not done and len(actions) < benchmark.horizon(task):
            actions.append(simulation.expert())
            done = simulation.step(actions[-1])
        chunks += [chunk_at(actions, at, 10) for at in range(0, len(actions), 10)]
        solved.append((done, len(actions)))
    simulation.close()
    return chunks, solved


def ours(actor, out, task, steps=STEPS):
    config = RolloutConfig(tasks=(task,), episodes=EPISODES, group=1, videos=0, horizon=steps, benchmark=SUITE)
    return read_episodes(rollout(out, config, actor, processes=1))


def theirs(actor, out, kind, task, steps=STEPS):
    config = {
        "output_dir": str(out),
        "benchmarks": [
            {
                "benchmark": kind,
                "episodes_per_task": EPISODES,
                "max_steps": steps,
                "tasks": [task],
                "params": {"suite": SUITE, "seed": 7, "env_seed": 0, "num_steps_wait": 10},
            }
        ],
    }
    with start_blocking_portal() as portal:
        run = partial(serve_async, Player(actor), host="127.0.0.1", port=0, max_megabytes=16)
        future, port = portal.start_task(run)
        try:
            results = run_vla_eval(config, server_url=f"ws://127.0.0.1:{port}", docker=False)
        finally:
            future.cancel()
    return results[0]["tasks"][0]["episodes"]


@pytest.fixture(scope="module")
def task():
    """The benchmark's name of a task, and its instruction, which is vla-eval's name."""
    benchmark = open_benchmark(SUITE)
    return benchmark.tasks[0], benchmark.instructions(benchmark.tasks[0]).training[0]


KIND = protocol_of("vla_eval.benchmarks.libero.benchmark:LIBEROBenchmark").settings.also[0]


@pytest.mark.slow
def test_a_policy_sees_and_does_the_same(policy, task, tmp_path):
    mine, other = Watched(load_actor(policy)), Watched(load_actor(policy))
    played = ours(mine, tmp_path / "ours", task[0])
    answered = theirs(other, tmp_path / "theirs", KIND, task[1])
    assert len(mine.said) == len(other.said) == EPISODES * -(-STEPS // mine.executed)
    for (a, words_a), (b, words_b) in zip(mine.seen, other.seen, strict=True):
        assert words_a == words_b == [task[1]]
        assert np.array_equal(a, b)
    assert np.array_equal(np.concatenate(mine.said), np.concatenate(other.said))
    assert len(np.unique(np.concatenate(mine.said), axis=0)) > 5, "the policy looks at its frames"
    assert [e["steps"] for e in answered] == [e.steps for e in played]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [KIND, "vla_eval.benchmarks.libero.benchmark:LIBEROBenchmark"])
def test_what_succeeds_here_succeeds_there(task, tmp_path, kind):
    chunks, solved = expert_chunks(open_benchmark(SUITE), task[0])
    assert any(done for done, _ in solved), "the expert solves some"
    steps = 280
    answered = theirs(Replay(list(chunks)), tmp_path / "theirs", kind, task[1], steps)
    if kind == KIND:
        played = ours(Replay(list(chunks)), tmp_path / "ours", task[0], steps)
        assert [(e.success, e.steps) for e in played] == solved
    assert [(bool(e["metrics"]["success"]), e["steps"]) for e in answered] == solved
