"""Pairwise MMD of 20 data sets x 5,000 x 1,024: ours against alibi-detect, the plain formula and the matrix product.

The peer is alibi-detect's MMDDrift (PyTorch backend, the same sigma, as few permutations as it takes: one), which
tests one pair at a time; it runs on a few pairs in a process of its own (--peer-python: a Python that has it), its
reference's own kernel not counted, and is scaled to all of them. Without it the plain formula is the peer:
torch.cdist, exp, mean. The floor is the float32 products of the same blocks alone (half a square for each data set
with itself). All take turns.

    python bench/mmd.py --peer-python /path/to/venv/bin/python
    python bench/mmd.py --sets 6 --rows 2000 --repeats 3
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
import torch

from embodied_midtrain.allocation import keep_large_blocks
from embodied_midtrain.gap.mmd import BLOCK, median_bandwidth, mmd_matrix

PEER = """
import json, sys, time
import numpy as np, torch
from alibi_detect.cd import MMDDrift
rows, dim, pairs, sigma = json.loads(sys.argv[1])
torch.set_num_threads(int(sys.argv[2]))
rng = np.random.default_rng(0)
x, *others = (rng.standard_normal((rows, dim), np.float32) + np.float32(0.02 * n) for n in range(pairs + 1))
drift = MMDDrift(x, backend="pytorch", sigma=np.array([sigma], np.float32), n_permutations=1, device="cpu")
seconds = []
for y in others:
    started = time.perf_counter()
    drift.predict(y)
    seconds.append(time.perf_counter() - started)
print(json.dumps(seconds))
"""


def make(sets: int, rows: int, dim: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"set {n}": rng.standard_normal((rows, dim), np.float32) + np.float32(0.02 * n) for n in range(sets)}


def naive(x: np.ndarray, y: np.ndarray, sigma: float) -> float:
    """The formula, written out in double precision."""
    tx, ty = torch.from_numpy(x).double(), torch.from_numpy(y).double()

    def k(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        distances = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
        return torch.exp(-(distances**2) / (2 * sigma**2))

    def within(a: torch.Tensor) -> float:
        return float((k(a, a).sum() - len(a)) / (len(a) * (len(a) - 1)))

    return within(tx) + within(ty) - 2 * float(k(tx, ty).mean())


def plain(x: np.ndarray, y: np.ndarray, sigma: float) -> float:
    """The formula in float32, as one would write it."""
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)

    def k(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.exp(-(torch.cdist(a, b) ** 2) / (2 * sigma**2))

    def within(a: torch.Tensor) -> float:
        return float((k(a, a).sum() - len(a)) / (len(a) * (len(a) - 1)))

    return within(tx) + within(ty) - 2 * float(k(tx, ty).mean())


def product(x: np.ndarray, y: np.ndarray) -> float:
    """Seconds of the float32 product of one pair, in whole."""
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)
    started = time.perf_counter()
    tx @ ty.T
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=2, help="pairs that peers are timed on, each repeat")
    parser.add_argument("--check", type=int, default=4, help="data sets whose matrix is compared with the formula")
    parser.add_argument("--check-rows", type=int, default=1000)
    parser.add_argument("--peer-python", type=Path, help="a Python with alibi-detect and torch")
    args = parser.parse_args()

    keep_large_blocks()
    groups = make(args.sets, args.rows, args.dim)
    names = list(groups)
    sigma = median_bandwidth(groups[names[0]])

    few = {name: groups[name][: args.check_rows] for name in (names[0], *names[1 - args.check :])}
    error = max(
        abs(mmd_matrix(few, sigma).unbiased[i, j] - naive(few[a], few[b], sigma))
        for (i, a), (j, b) in itertools.combinations(enumerate(few), 2)
    )

    pairs = args.sets * (args.sets - 1) // 2
    some = list(itertools.combinations(names, 2))[: args.pairs]
    ours, floor, formula, peer = [], [], [], []
    for _ in range(args.repeats):
        # Around ours, so that what else the machine does weighs on both.
        products = [product(groups[a], groups[b]) for a, b in some]
        started = time.perf_counter()
        mmd_matrix(groups, sigma)
        ours.append(time.perf_counter() - started)
        products += [product(groups[a], groups[b]) for a, b in some]
        floor.append(statistics.median(products) * (pairs + args.sets / 2))
        started = time.perf_counter()
        for a, b in some:
            plain(groups[a], groups[b], sigma)
        formula.append((time.perf_counter() - started) / len(some) * pairs)
        if args.peer_python:
            asked = json.dumps([args.rows, args.dim, args.pairs, sigma])
            command = [str(args.peer_python), "-c", PEER, asked, str(torch.get_num_threads())]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            peer.append(statistics.mean(json.loads(said.splitlines()[-1])) * pairs)

    work = 2 * args.rows**2 * args.dim * (pairs + args.sets / 2)
    print(
        f"{args.sets} data sets x {args.rows} x {args.dim}, float32, blocks of {BLOCK} rows, "
        f"{torch.get_num_threads()} threads"
    )
    median = statistics.median
    print(f"ours            {median(ours):9.1f} s   {work / median(ours) / 1e9:6.1f} GFLOP/s")
    print(f"products alone  {median(floor):9.1f} s   {work / median(floor) / 1e9:6.1f} GFLOP/s   (float32, the floor)")
    print(f"plain formula   {median(formula):9.1f} s   (float32 cdist; {args.pairs} pairs, scaled to {pairs})")
    if peer:
        print(f"alibi-detect    {median(peer):9.1f} s   ({args.pairs} pairs, scaled to {pairs})")
    others = {
        "share of the product's rate": floor,
        "ratio to the plain formula": formula,
        # Not installed everywhere.
        **({"ratio to alibi-detect": peer} if peer else {}),
    }
    for text, other in others.items():
        ratios = [b / a for a, b in zip(ours, other, strict=True)]
        print(f"{text:<30}{median(ratios):6.2f}   (median of {len(ratios)}; {min(ratios):.2f} to {max(ratios):.2f})")
    print(f"largest difference from the formula in float64: {error:.1e} ({args.check} sets of {args.check_rows} rows)")


if __name__ == "__main__":
    main()
