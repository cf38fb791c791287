"""Scoring a feature store: rows per second from files to the top K, against reading the same files and scikit-learn.

    python bench/score.py                              2 M rows of 1,024 values, top 100,000 (4 GB on disk)
    python bench/score.py --rows 200000 --folder runs/bench

The peers: reading every byte of the same files, and scikit-learn's `predict_proba` over the same Parquet files in
chunks. Each runs in a process of its own, in turn. The files come from the disk: they are put out of the page cache
before each run; with --cached they stay in it, where reading is copying memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression

from embodied_midtrain.features.store import FeatureStore, Shard, write_shard
from embodied_midtrain.proximity.estimator import Estimator
from embodied_midtrain.proximity.scoring import score_store
from embodied_midtrain.proximity.shaping import top_k

SHARD = 65_536


def make(folder: Path, rows: int, dim: int) -> None:
    """Shards of made-up features; those that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    block = np.random.default_rng(0).standard_normal((SHARD, dim), np.float32).astype(np.float16)
    for first in range(0, rows, SHARD):
        path = folder / f"shard-{first // SHARD:06d}.parquet"
        count = min(SHARD, rows - first)
        if not path.is_file():
            keys = [(f"source-{first // SHARD % 20}", f"{first + n:09d}") for n in range(count)]
            write_shard(path, keys, np.roll(block, first // SHARD, axis=1)[:count])


def weights(dim: int) -> np.ndarray:
    # Small, so that probabilities do not all end at 0 and 1.
    return (0.03 * np.random.default_rng(1).standard_normal(dim)).astype(np.float32)


def forget(folder: Path) -> None:
    """Put the files out of the page cache."""
    for path in folder.glob("*.parquet"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def ours(folder: Path, dim: int, k: int) -> np.ndarray:
    store = FeatureStore(folder, tuple(Shard.open(path) for path in sorted(folder.glob("*.parquet"))))
    layers = [(weights(dim)[None], np.zeros(1, np.float32))]
    nothing = float("nan")
    scorer = Estimator(
        np.zeros(dim, np.float32), np.ones(dim, np.float32), layers, {}, 1.0, 1, "", [], (nothing, nothing)
    )
    return top_k(score_store(scorer, store), k)


def reading(folder: Path, dim: int, k: int) -> np.ndarray:
    total = 0
    for path in sorted(folder.glob("*.parquet")):
        with path.open("rb", buffering=0) as file:
            while data := file.read(1 << 22):
                total += len(data)
    return np.array([total])


def sklearn(folder: Path, dim: int, k: int) -> np.ndarray:
    model = LogisticRegression()
    model.classes_, model.coef_, model.intercept_ = np.array([0, 1]), weights(dim)[None], np.zeros(1)
    parts = []
    for path in sorted(folder.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(8192, columns=["feature"]):
            values = np.frombuffer(batch["feature"].buffers()[1], np.float16)[: len(batch) * dim]
            parts.append(model.predict_proba(values.reshape(-1, dim).astype(np.float32))[:, 1])
    scores = np.concatenate(parts)
    return np.argsort(-scores, kind="stable")[:k]


def apart(name: str, folder: Path, dim: int, k: int) -> dict[str, Any]:
    """Seconds and peak memory of one run in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(timed, (name, folder, dim, k))


def timed(name: str, folder: Path, dim: int, k: int) -> dict[str, Any]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    result = {"ours": ours, "reading": reading, "sklearn": sklearn}[name](folder, dim, k)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "peak": peak * 1024, "before": before * 1024, "result": result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--k", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-score"))
    parser.add_argument("--cached", action="store_true", help="leave the files in the page cache")
    parser.add_argument("--keep", action="store_true", help="leave the made-up features there")
    args = parser.parse_args()

    make(args.folder, args.rows, args.dim)
    size = sum(path.stat().st_size for path in args.folder.glob("*.parquet"))
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(args.repeats):
        for name in ("reading", "ours", "sklearn"):
            if not args.cached:
                forget(args.folder)
            found.setdefault(name, []).append(apart(name, args.folder, args.dim, args.k))
    seconds = {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    print(f"{args.rows} rows of {args.dim} float16 values, {size / 1e9:.2f} GB, top {args.k}, median of {args.repeats}")
    for name, runs in found.items():
        peak = max(run["peak"] for run in runs) / 2**20
        rate = args.rows / seconds[name]
        print(
            f"{name:<9}{seconds[name]:8.2f} s {size / seconds[name] / 1e9:7.2f} GB/s {rate:12.0f} rows/s  "
            f"peak {peak:.0f} MiB"
        )
    print(f"ratio to reading the same files (the floor)  {seconds['reading'] / seconds['ours']:.2f}")
    print(f"ratio to scikit-learn                        {seconds['sklearn'] / seconds['ours']:.2f}")
    same = len(np.intersect1d(found["ours"][0]["result"], found["sklearn"][0]["result"])) / args.k
    print(f"rows in common with scikit-learn's choice    {same:.4%}")
    print(json.dumps({"seconds": seconds, "bytes": size}))
    if not args.keep:
        shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
