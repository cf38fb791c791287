"""Can every head learn? Each overfits a few demonstrations of one task and is rolled out from their own initial states.

    python -m tools.overfit_heads --out runs/overfit
    python -m tools.overfit_heads --out runs/overfit --heads flow fast --steps 600

Three demonstrations of a scripted expert, undisturbed; the compact backbone with its first layers, vision computed
once; then closed loop from the three states that were demonstrated. A policy that does nothing at random gives the same
episode for the same state and wording, so that the number of different episodes is printed beside the successes; the
flow head is rolled out with other noise in every round. Exits with 1 where a head stays below nine in ten. A second
call goes on from what is there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import h5py

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.benchmarks.demos import DemosConfig, record_demos
from embodied_midtrain.benchmarks.rollout import EpisodeResult, RolloutConfig, read_episodes, rollout
from embodied_midtrain.intervals import wilson
from embodied_midtrain.policies.finetune import FinetuneConfig, finetune
from embodied_midtrain.policies.flow import FlowConfig
from embodied_midtrain.policies.opening import load_actor
from embodied_midtrain.policies.parallel import ParallelConfig
from embodied_midtrain.policies.tokens import FastNet
from embodied_midtrain.robots.opening import open_robots

HEADS: dict[str, dict[str, object]] = {
    "query": {"head": "query", "arm_loss": "absolute", "gripper_weight": 0.2, "widths": (256, 256, 256)},
    "parallel": {"head": "parallel"},
    "parallel-steps": {"head": "parallel", "parallel": ParallelConfig(placeholders="steps")},
    "flow": {"head": "flow"},
    "flow-adaptive": {"head": "flow", "flow": FlowConfig(expert_time="adaptive")},
    "flow-insulated": {"head": "flow", "flow": FlowConfig(insulate=True)},
    "fast": {"head": "fast"},
}
NEEDED = 0.9


@dataclass(frozen=True)
class Row:
    """What came of one head."""

    head: str
    first: float
    last: float
    minutes: float
    episodes: list[EpisodeResult]
    noises: int
    malformed: str

    @property
    def solved(self) -> int:
        return sum(e.success for e in self.episodes)

    def __str__(self) -> str:
        low, high = wilson(self.solved, len(self.episodes))
        share = f"{self.solved} of {len(self.episodes)} ({low:.0%} to {high:.0%})"
        different = len({(e.state, e.instruction) for e in self.episodes}) * self.noises
        return (
            f"{self.head:<16}{self.first:>9.4f}{self.last:>9.4f}{self.minutes:>9.1f}  {share:<26}{different:>9}  "
            f"{self.malformed}"
        )


TITLE = f"{'head':<16}{'loss at':>9}{'loss at':>9}{'minutes':>9}  {'solved':<26}{'different':>9}  malformed\n"
TITLE += f"{'':<16}{'first':>9}{'last':>9}"


def initial_states(demos: Path, task: str) -> tuple[int, ...]:
    """The states that demonstrations began in, in their order."""
    with h5py.File(demos / f"{task}.hdf5") as file:
        data = file["data"]
        return tuple(int(data[f"demo_{n}"].attrs["initial_state"]) for n in range(len(data)))


def overfit(head: str, args: argparse.Namespace, demos: Path) -> Row:
    config = FinetuneConfig(
        chunk=10,
        executed=5,
        steps=args.steps,
        batch=args.batch,
        micro_batch=args.batch,
        lr=args.lr,
        warmup_steps=20,
        layers=args.layers,
        stride=args.stride,
        train=("connector", "language"),
        save_seconds=60.0,
        **HEADS[head],
    )
    started = time.monotonic()
    robots = open_robots(demos, Skips())
    artifact = finetune(
        args.out / head / "policy", config, backbone=load_backbone("compact"), demos=robots, cache=args.out / "cache"
    )
    minutes = (time.monotonic() - started) / 60
    losses = json.loads(artifact.file("curve.json").read_text())["loss"]
    states = initial_states(demos, args.task)
    noises = args.noises if head.startswith("flow") else 1
    wanted = RolloutConfig(tasks=(args.task,), episodes=args.episodes, group=args.episodes, videos=0, states=states)
    actor = load_actor(artifact.path)
    episodes = []
    for noise in range(noises):
        played = rollout(args.out / head / f"rollout-{noise}", wanted, actor.reseeded(noise), processes=1)
        episodes += read_episodes(played)
    malformed = "-"
    if isinstance(actor.net, FastNet):
        malformed = f"{actor.net.tokens.malformed} of {actor.net.tokens.said} chunks"
    return Row(head, losses[0], sum(losses[-10:]) / len(losses[-10:]), minutes, episodes, noises, malformed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--task", default="drawer-open-v3")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=["query", "parallel", "flow", "fast"])
    parser.add_argument("--demos", type=int, default=3)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--stride", type=int, default=2, help="train on every n-th frame")
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--episodes", type=int, default=12, help="go round in the demonstrated states")
    parser.add_argument("--noises", type=int, default=2, help="of the flow head: rounds with other noise")
    args = parser.parse_args()

    demos = args.out / "demos"
    recorded = DemosConfig(tasks=(args.task,), episodes=args.demos, size=128, disturbed=0.0)
    counts = record_demos(demos, recorded, processes=1).counts
    print(
        f"{args.task}: {counts['episodes']} demonstrations, {counts['frames']} frames, trained on one in {args.stride}"
    )
    rows = []
    for head in args.heads:
        rows.append(overfit(head, args, demos))
        print(f"{TITLE}\n{rows[-1]}", flush=True)
    print("\n" + "\n".join([TITLE, *map(str, rows)]))
    sys.exit(any(row.solved < NEEDED * len(row.episodes) for row in rows))


if __name__ == "__main__":
    main()
