"""Environment steps per second of rollouts: ours against one environment at a time, with the same policy.

Ours: a group of episodes over processes, frames drawn without shadows and only when the policy looks, the policy
asked for all of them at once; as `emt rollout` does. The peer: one environment made as its package's documentation
shows, its own rendering as it comes (Meta-World: `env.render()`, 480 px, when the policy looks; LIBERO:
`OffScreenRenderEnv`, whose every step returns the pictures of two cameras, 128 px), the policy asked for one frame.
Both execute the same number of actions of each chunk. Building the environments is not counted. Then the shares of
simulator, rendering and policy, each alone in this process.

    python bench/rollout.py --policy runs/quickstart/policies/selected
    python bench/rollout.py --policy runs/mine/policy --benchmarks libero_object --group 10
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embodied_midtrain.benchmarks.actors import RandomActor
from embodied_midtrain.benchmarks.libero_world import close_idle_worlds
from embodied_midtrain.benchmarks.protocol import Actor, evaluation_state, open_benchmark
from embodied_midtrain.benchmarks.team import Team
from embodied_midtrain.simulation.rendering import prepare_mujoco

FLOOR = 3.0
"""The ratio that we promise; the exit status is 1 below it."""
TASKS = {"metaworld": "pick-place-v3", "libero_object": "pick_up_the_alphabet_soup_and_place_it_in_the_basket"}


def fitted(actions: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Actions of a policy for another robot, cut or filled with zeros: what it costs to choose them is the same."""
    out = np.zeros((*actions.shape[:-1], width), np.float32)
    out[..., : min(width, actions.shape[-1])] = actions[..., :width]
    return out


def ours(name: str, task: str, actor: Actor, group: int, processes: int, looks: int) -> float:
    """Environment steps a second."""
    benchmark = open_benchmark(name)
    words = [benchmark.instructions(task).training[0]] * group
    with Team(name, processes) as team:
        seen = team.start(task, actor.size, {seat: evaluation_state(seat) for seat in range(group)})

        def look() -> None:
            frames = np.stack([seen[seat].frame for seat in range(group)])
            actions = fitted(actor.act(frames, words), benchmark.spec.width)[:, : actor.executed]
            seen.update(team.go({seat: actions[seat] for seat in range(group)}))

        return group * actor.executed / seconds_each(look, looks)


def peer(name: str, task: str, actor: Actor, looks: int) -> float:
    """Environment steps a second."""
    step, frame = metaworld_peer(task) if name == "metaworld" else libero_peer(name, task)
    benchmark = open_benchmark(name)
    words = [benchmark.instructions(task).training[0]]

    def look() -> None:
        picture = np.asarray(Image.fromarray(frame()).resize((actor.size, actor.size)))
        for action in fitted(actor.act(picture[None], words), benchmark.spec.width)[0, : actor.executed]:
            step(action)

    return actor.executed / seconds_each(look, looks)


def metaworld_peer(task: str) -> tuple[Callable[[Any], Any], Callable[[], NDArray[np.uint8]]]:
    """Meta-World's environment: how to step it, and its picture."""
    from metaworld.env_dict import ENV_CLS_MAP

    env = ENV_CLS_MAP[task](render_mode="rgb_array", camera_name="corner2")
    env._set_task_called, env._freeze_rand_vec, env.seeded_rand_vec = True, False, True
    env._partially_observable = False
    env.__dict__.pop("sawyer_observation_space", None)
    env.max_path_length = 1_000_000
    env.seed(1)
    env.reset()
    return env.step, lambda: np.ascontiguousarray(env.render()[::-1])


def libero_peer(suite: str, task: str) -> tuple[Callable[[Any], Any], Callable[[], NDArray[np.uint8]]]:
    """LIBERO's environment: how to step it, and its picture."""
    from libero.libero import get_libero_path
    from libero.libero.envs import OffScreenRenderEnv

    description = Path(get_libero_path("bddl_files")) / suite / f"{task}.bddl"
    env = OffScreenRenderEnv(bddl_file_name=str(description), ignore_done=True)
    env.seed(0)
    latest = [env.reset()]

    def step(action: Any) -> None:
        latest[0] = env.step(action)[0]

    return step, lambda: np.ascontiguousarray(latest[0]["agentview_image"][::-1])


def shares(name: str, task: str, actor: Actor, group: int, looks: int) -> dict[str, float]:
    """Seconds an environment step of our loop, by what they go into, each alone in this process."""
    benchmark = open_benchmark(name)
    simulation = benchmark.make(task, actor.size)
    simulation.reset(evaluation_state(0))
    frame, words = simulation.frame(), benchmark.instructions(task).training[0]
    still = np.zeros(benchmark.spec.width, np.float32)
    times = {
        "simulator": seconds_each(lambda: simulation.step(still), looks * actor.executed),
        "rendering": seconds_each(simulation.frame, looks) / actor.executed,
        "policy": seconds_each(lambda: actor.act(np.stack([frame] * group), [words] * group), looks)
        / (group * actor.executed),
    }
    simulation.close()
    close_idle_worlds()
    return times


def seconds_each(call: Callable[[], Any], times: int) -> float:
    call()
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="random", help="folder of emt finetune; of another robot too")
    parser.add_argument("--benchmarks", nargs="+", choices=sorted(TASKS), default=sorted(TASKS))
    parser.add_argument("--group", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--looks", type=int, default=12, help="decisions of the policy that are timed")
    parser.add_argument("--repeats", type=int, default=3, help="ours and the peer take turns; the median ratio counts")
    given = parser.parse_args()
    prepare_mujoco()
    worst = float("inf")
    for name in given.benchmarks:
        task, actor = TASKS[name], actor_of(given.policy, name)
        # First: robosuite's rendering ends EGL for the process when it goes.
        parts = shares(name, task, actor, given.group, given.looks)
        rows = []
        for _ in range(given.repeats):
            rows.append(
                (
                    ours(name, task, actor, given.group, given.processes, given.looks),
                    peer(name, task, actor, given.looks),
                )
            )
        mine, theirs = (float(np.median(column)) for column in zip(*rows, strict=True))
        ratio = float(np.median([a / b for a, b in rows]))
        worst = min(worst, ratio)
        print(
            f"{name}, {task}: {mine:.0f} environment steps/s, peer {theirs:.1f}, ratio {ratio:.1f} (floor {FLOOR:.0f})"
        )
        total = sum(parts.values())
        print("  " + ", ".join(f"{part} {seconds / total:.0%}" for part, seconds in parts.items()))
    return 0 if worst >= FLOOR else 1


def actor_of(policy: str, name: str) -> Actor:
    if policy == "random":
        return RandomActor(open_benchmark(name).spec, size=224)
    from embodied_midtrain.policies.opening import load_actor

    return load_actor(policy)


if __name__ == "__main__":
    sys.exit(main())
