"""The top 1.2 M of 100 M scores under caps per source, against a sort by polars and pandas.

    python bench/rank.py
    python bench/rank.py --rows 10000000 --k 120000

Each in a process of its own, in turn. The peers sort and then count down each source, as one would write it there.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import resource
import statistics
import time

import numpy as np

from embodied_midtrain.proximity.shaping import top_k

SOURCES = 20


def made(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (with equal ones among them) and sources; some sources lie closer than others."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, SOURCES, rows, dtype=np.uint16)
    scores = rng.random(rows, dtype=np.float32)
    scores += codes.astype(np.float32) / SOURCES
    return np.round(scores, 6), codes


def ours(scores: np.ndarray, codes: np.ndarray, k: int, cap: int) -> int:
    return int(top_k(scores, k, codes=codes, caps=np.full(SOURCES, cap)).sum())


def pandas(scores: np.ndarray, codes: np.ndarray, k: int, cap: int) -> int:
    import pandas as pd

    table = pd.DataFrame({"score": scores, "code": codes}).sort_values("score", ascending=False, kind="stable")
    kept = table[table.groupby("code", sort=False).cumcount() < cap]
    return int(kept.index[:k].to_numpy().sum())


def polars(scores: np.ndarray, codes: np.ndarray, k: int, cap: int) -> int:
    import polars as pl

    table = pl.DataFrame({"score": scores, "code": codes}).with_row_index("place")
    table = table.sort("score", descending=True, maintain_order=True)
    kept = table.filter(pl.col("place").cum_count().over("code") <= cap)
    # A sum of 32-bit numbers would overflow.
    return int(kept["place"][:k].cast(pl.Int64).sum())


def timed(name: str, rows: int, k: int, cap: int) -> dict[str, float]:
    scores, codes = made(rows)
    started = time.perf_counter()
    result = {"ours": ours, "pandas": pandas, "polars": polars}[name](scores, codes, k, cap)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "peak": peak, "result": result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--k", type=int, default=1_200_000)
    parser.add_argument("--cap", type=float, default=0.2, help="share of the selection that a source may have")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    names = ["ours", *(name for name in ("polars", "pandas") if importlib.util.find_spec(name))]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(args.repeats):
        for name in names:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[name].append(pool.apply(timed, (name, args.rows, args.k, int(args.cap * args.k))))
    seconds = {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    print(
        f"top {args.k} of {args.rows} scores of {SOURCES} sources, at most {args.cap:.0%} of one; "
        f"median of {args.repeats}"
    )
    for name, runs in found.items():
        peak = max(run["peak"] for run in runs) / 2**20
        same = "the same rows" if runs[0]["result"] == found["ours"][0]["result"] else "OTHER ROWS"
        ratio = seconds[name] / seconds["ours"]
        print(f"{name:<8}{seconds[name]:8.2f} s   ratio {ratio:5.2f}   peak {peak:6.0f} MiB (with the scores)   {same}")
    print(f"floor   {args.rows * 6 / 10e9:8.2f} s   (scores and sources read once at 10 GB/s)")


if __name__ == "__main__":
    main()
