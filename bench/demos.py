"""Rendered frames per second: ours against Meta-World's own rendering, same tasks, states, size and process.

The peer is `env.render()` of the package as it comes (render_mode="rgb_array", camera "corner2"): shadow maps, four
samples a pixel, reflections. Both render the states of one expert episode; blocks of frames alternate. A third row
records whole demonstrations (simulation, rendering, packing and writing), as `emt demos` does on one process.

    python bench/demos.py
    python bench/demos.py --tasks reach-v3 door-open-v3 --size 224
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from embodied_midtrain.artifacts import Artifact
from embodied_midtrain.benchmarks.demos import DemosConfig, record_demos
from embodied_midtrain.benchmarks.metaworld import MetaWorldSimulation
from embodied_midtrain.benchmarks.protocol import training_state
from embodied_midtrain.simulation.rendering import prepare_mujoco

FLOOR = 5.0
"""The ratio that we promise; the exit status is 1 below it."""


def peer_of(task: str, size: int) -> Any:
    """Meta-World's environment, made to render as its documentation shows."""
    from metaworld.env_dict import ENV_CLS_MAP

    env = ENV_CLS_MAP[task](render_mode="rgb_array", camera_name="corner2", width=size, height=size)
    env._set_task_called, env._freeze_rand_vec, env.seeded_rand_vec = True, False, True
    env._partially_observable = False
    env.__dict__.pop("sawyer_observation_space", None)
    env.seed(training_state(0, 0))
    env.reset()
    return env


def seconds_a_frame(render: Callable[[], Any], frames: int) -> tuple[float, float]:
    """On the clock, and of CPU time over all threads (what counts where others keep the machine busy)."""
    clock, cpu = time.perf_counter(), time.process_time()
    for _ in range(frames):
        render()
    return (time.perf_counter() - clock) / frames, (time.process_time() - cpu) / frames


def measure(task: str, size: int, repeats: int, frames: int) -> dict[str, tuple[float, float]]:
    """Median frames per second, and per second of CPU time, of ours and of the peer."""
    ours, peer = MetaWorldSimulation(task, size), peer_of(task, size)
    ours.reset(training_state(0, 0))
    shape = ours.frame().shape
    assert peer.render().shape == shape, "both draw the same number of pixels"
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "peer": []}
    for _ in range(repeats):
        for _ in range(5):
            action = ours.expert()
            ours.step(action)
            peer.step(action)
        times["ours"].append(seconds_a_frame(ours.frame, frames))
        times["peer"].append(seconds_a_frame(peer.render, max(2, frames // 8)))
    ours.close()
    peer.close()
    return {
        name: (1 / statistics.median(t for t, _ in rows), 1 / statistics.median(t for _, t in rows))
        for name, rows in times.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["reach-v3", "pick-place-v3", "drawer-open-v3", "door-open-v3"])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--episodes", type=int, default=0, help="also record this many episodes of the first task")
    given = parser.parse_args()
    prepare_mujoco()
    ratios = []
    print(f"frames per second at {given.size} px, medians of {given.repeats} alternating blocks (per CPU second)")
    for task in given.tasks:
        rates = measure(task, given.size, given.repeats, given.frames)
        (ours, ours_cpu), (peer, peer_cpu) = rates["ours"], rates["peer"]
        ratios.append(ours / peer)
        print(
            f"{task:<20}ours {ours:6.1f} ({ours_cpu:6.1f})  peer {peer:6.1f} ({peer_cpu:6.1f})  "
            f"ratio {ours / peer:5.1f} ({ours_cpu / peer_cpu:5.1f})",
            flush=True,
        )
    worst = min(ratios)
    print(f"median ratio {statistics.median(ratios):.1f}, lowest {worst:.1f}, wanted {FLOOR:.0f} or more")
    if given.episodes:
        with tempfile.TemporaryDirectory() as folder:
            config = DemosConfig(tasks=(given.tasks[0],), episodes=given.episodes, size=given.size)
            started = time.perf_counter()
            artifact: Artifact = record_demos(folder, config, processes=2)
            seconds = time.perf_counter() - started
        frames = artifact.counts["frames"]
        print(
            f"{given.episodes} episodes of {given.tasks[0]} on 2 processes: {seconds:.1f} s, {frames} frames, "
            f"{frames / seconds:.0f} frames/s recorded"
        )
    return 0 if worst >= FLOOR else 1


if __name__ == "__main__":
    sys.exit(main())
