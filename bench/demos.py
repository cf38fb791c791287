"""Rendered frames per second: ours against Meta-World's own rendering, same tasks, states and process.

The peer is `env.render()` of the package as it comes (render_mode="rgb_array", camera "corner2"): 480 x 480 pixels,
shadow maps, four samples a pixel, reflections. A second peer is the same made with our size, which most of its users
do not know that they can ask for. All render the states of one expert episode; blocks of frames alternate. Frames per
second of CPU time stand in brackets: they count where others keep the machine busy. `--episodes` also records whole
demonstrations (simulation, rendering, packing, writing), as `emt demos` does.

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
"""The ratio at the same size that we promise; the exit status is 1 below it."""


def peer_of(task: str, **size: int) -> Any:
    """Meta-World's environment, made to render as its documentation shows."""
    from metaworld.env_dict import ENV_CLS_MAP

    env = ENV_CLS_MAP[task](render_mode="rgb_array", camera_name="corner2", **size)
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
    """Median frames per second, and per second of CPU time."""
    ours = MetaWorldSimulation(task, size)
    ours.reset(training_state(0, 0))
    peers = {"default": peer_of(task), "same size": peer_of(task, width=size, height=size)}
    renders = {"ours": ours.frame, **{name: peer.render for name, peer in peers.items()}}
    assert renders["ours"]().shape == renders["same size"]().shape and renders["default"]().shape == (480, 480, 3)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in renders}
    for _ in range(repeats):
        for _ in range(5):
            action = ours.expert()
            ours.step(action)
            for peer in peers.values():
                peer.step(action)
        for name, render in renders.items():
            # The peer never makes its OpenGL context current again: it would draw with ours, which is faster.
            if name in peers:
                peers[name].mujoco_renderer.viewer.make_context_current()
                render()
            times[name].append(seconds_a_frame(render, frames if name == "ours" else max(2, frames // 8)))
    ours.close()
    for peer in peers.values():
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
    print(f"frames per second, medians of {given.repeats} alternating blocks (per second of CPU time)")
    for task in given.tasks:
        rates = measure(task, given.size, given.repeats, given.frames)
        ours, ours_cpu = rates["ours"]
        print(f"{task}: ours at {given.size} px {ours:.1f} ({ours_cpu:.1f})")
        for name, words in (("default", "peer as it comes, 480 px"), ("same size", f"peer at {given.size} px")):
            peer, peer_cpu = rates[name]
            print(f"  {words:<26}{peer:6.1f} ({peer_cpu:6.1f})  ratio {ours / peer:5.1f} ({ours_cpu / peer_cpu:5.1f})")
        ratios.append(ours / rates["same size"][0])
    worst = min(ratios)
    print(f"ratio at the same size: median {statistics.median(ratios):.1f}, lowest {worst:.1f}, floor {FLOOR:.0f}")
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
