"""Gradient features for selection: tokens a second, against training on the same samples.

    python bench/influence.py                                    made-up conversations, compact and a small Qwen3-VL
    python bench/influence.py --pool runs/quickstart/pool        half of the samples from a pool
    python bench/influence.py --backbones compact --repeats 5 --cpu-time

Training is forward and backward through language model and connector, by the loss of mid-training, in the same batches;
no optimiser runs. The peer is the plain way to gradients by sample (LESS): LoRA beside all linear layers, one sample at
a time, its projection not counted. Vision is computed before and given to all where the backbone allows that. The floor
are the operations of forward and backward to the activations over the measured rate of a matrix product.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from midtrain import kept_vision, mixed, opened

from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.backbones.compact.weights import cache_dir
from embodied_midtrain.backbones.precision import autocast, pick_precision
from embodied_midtrain.features.extractor import batches_of
from embodied_midtrain.midtraining.costs import numbers, operations
from embodied_midtrain.midtraining.parts import chosen
from embodied_midtrain.midtraining.settings import MidtrainConfig
from embodied_midtrain.proximity.gradients import Gradients
from embodied_midtrain.training.lora import add_lora, let_learn
from embodied_midtrain.training.peak import matmul_rate

Clock = Callable[[], float]
PARTS = ("connector", "language")


def training(backbone: Backbone, rows: Sequence[Rendered], batch_size: int, clock: Clock) -> float:
    let_learn(backbone.base, chosen(backbone, PARTS, 1.0), lora=False, rank=1, alpha=1, seed=0)
    started = clock()
    for some in batches_of([len(row) for row in rows], batch_size):
        with autocast(backbone.device, "auto"):
            loss = backbone.loss(backbone.collate([rows[n] for n in some]))
        loss.backward()
    seconds = clock() - started
    backbone.base.zero_grad()
    return seconds


def one_by_one(backbone: Backbone, rows: Sequence[Rendered], clock: Clock) -> float:
    learning = [p for p in backbone.base.parameters() if p.requires_grad]
    started = clock()
    for row in rows:
        with autocast(backbone.device, "auto"):
            loss = backbone.loss(backbone.collate([row]))
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, learning)])
    return clock() - started


def ours(backbone: Backbone, rows: Sequence[Rendered], batch_size: int, rank: int, clock: Clock) -> float:
    with Gradients(backbone, rank=rank, last=1.0, seed=0, precision="auto") as gradients:
        started = clock()
        gradients.of(rows, batch_size)
        return clock() - started


def resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def compare(backbone: Backbone, rows: Sequence[Rendered], args: argparse.Namespace, clock: Clock) -> None:
    found: dict[str, list[float]] = {"ours": [], "training": []}
    for repeat in range(args.repeats + 1):
        one = ours(backbone, rows, args.batch_size, args.rank, clock)
        two = training(backbone, rows, args.batch_size, clock)
        if repeat:
            found["ours"].append(one)
            found["training"].append(two)
    backbone.base.requires_grad_(False)
    example = next(row for row in rows if row.pixels)
    cost = operations(backbone, example)
    learnt = sum(sum(row.learnt[1:]) for row in rows)
    dtype = pick_precision("auto", backbone.device)
    needed = cost.of([len(row) for row in rows], learnt, sum(numbers(row) for row in rows))
    floor = needed / matmul_rate(backbone.device, dtype, cache_dir() / "matmul.json")
    add_lora(backbone.base.model, rank=args.rank, alpha=args.rank, seed=0)
    few = rows[:: max(1, len(rows) // 16)]
    peer = one_by_one(backbone, few, clock) * sum(map(len, rows)) / sum(map(len, few))
    tokens = sum(len(row) for row in rows)
    a, b = (statistics.median(own) for own in found.values())
    print(
        f"{backbone.name}, rank {args.rank}: {len(rows)} samples, {tokens} tokens ({learnt} learnt), batches of "
        f"{args.batch_size}, {str(dtype).removeprefix('torch.')}, {torch.get_num_threads()} threads, median of "
        f"{args.repeats}"
    )
    for name, seconds in (("ours", a), ("training", b), ("peer", peer), ("floor", floor)):
        print(f"{name:<10}{tokens / seconds:10.0f} tokens/s {seconds:8.2f} s")
    ratios = sorted(y / x for x, y in zip(*found.values(), strict=True))
    print(f"ratio to training {b / a:6.2f}   ({ratios[0]:.2f} to {ratios[-1]:.2f} by run)")
    print(f"ratio to the peer {peer / a:6.2f}   (one sample at a time, {len(few)} of the samples)\n", flush=True)


def growth(backbone: Backbone, rows: Sequence[Rendered], args: argparse.Namespace) -> None:
    """Peak memory with more and more samples, given in parts as 'emt score' does."""
    with Gradients(backbone, rank=args.rank, last=1.0, seed=0, precision="auto") as gradients:
        for times in (1, 4):
            for _ in range(times):
                gradients.of(rows, args.batch_size)
            print(f"peak memory {resident():.0f} MiB after {times} x {len(rows)} samples more")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["compact", "qwen3-vl"])
    parser.add_argument("--pool", help="half of the samples come from here")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true", help="of this process, for a machine that is busy")
    args = parser.parse_args()
    clock = time.process_time if args.cpu_time else time.perf_counter
    print("seconds of processor time" if args.cpu_time else "seconds by the clock", flush=True)
    for name in args.backbones:
        backbone = opened(name)
        rows = mixed(backbone, args.pool, args.samples)
        if backbone.caches_vision:
            rows = kept_vision(backbone, rows, MidtrainConfig())
        growth(backbone, rows, args)
        compare(backbone, rows, args, clock)


if __name__ == "__main__":
    main()
