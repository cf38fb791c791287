"""Fitting the proximity estimator to 100,000 features, against scikit-learn's logistic regression on the same rows.

    python bench/fit.py

Ours stops early and validates after every step, as the paper does; the peer goes to its own stop. The floor is reading
the features once: every row enters the mean and the deviation.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import numpy as np

from embodied_midtrain.features.store import FeatureTable
from embodied_midtrain.proximity.estimator import EstimatorConfig, fit_estimator


def sides(rows: int, dim: int) -> tuple[FeatureTable, FeatureTable]:
    rng = np.random.default_rng(0)
    tables = []
    for name, count, shift in (("pool", rows, 0.0), ("target", rows // 5, 0.15)):
        features = rng.standard_normal((count, dim), np.float32) + np.float32(shift)
        ids = np.array([f"{n // 20:06d}/{n % 20}" for n in range(count)])
        tables.append(FeatureTable(np.full(count, name), ids, features))
    return tables[0], tables[1]


def peer(pool: FeatureTable, target: FeatureTable) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rows = np.concatenate([pool.features, target.features])
    is_target = np.arange(len(rows)) >= len(pool)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        LogisticRegression(class_weight="balanced", max_iter=100).fit(StandardScaler().fit_transform(rows), is_target)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    pool, target = sides(options.rows, options.dim)
    ours: list[float] = []
    theirs: list[float] = []
    floor: list[float] = []
    for _ in range(options.repeats):
        started = time.perf_counter()
        fitted = fit_estimator(pool, target, EstimatorConfig())
        ours.append(time.perf_counter() - started)
        theirs.append(peer(pool, target))
        started = time.perf_counter()
        float(pool.features.sum()) + float(target.features.sum())
        floor.append(time.perf_counter() - started)
    a, b, c = (statistics.median(seconds) for seconds in (ours, theirs, floor))
    print(f"{options.rows} x {options.dim} and {options.rows // 5} of the target, float32")
    print(f"ours       {a:7.2f} s   ({fitted.steps} steps, stopped by {fitted.stopped_by})")
    print(f"peer       {b:7.2f} s   (scikit-learn, logistic regression)")
    print(f"ratio      {b / a:7.2f}")
    print(f"floor      {c:7.2f} s   (reading every row once)")


if __name__ == "__main__":
    main()
