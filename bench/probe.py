"""Probes of 100,000 frames x 576, all targets and their controls, 5 folds, against scikit-learn target by target.

    python bench/probe.py                          --repeats 3 for medians
    python bench/probe.py --rows 20000 --folds-of-peer 1

Made-up robot data: 1,000 episodes, chunks of 10 actions of 7 numbers, a gripper, 12 numbers of state, 10 instructions;
features know a part of each. The peer fits RidgeCV (the same penalties, by leave-one-out) and LogisticRegression per
target and fold, without a control; it runs on one fold and is scaled to all. The floor is one product X^T X.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch

from embodied_midtrain.diagnostics.labels import Labels, Track, labels_of, rows_at
from embodied_midtrain.diagnostics.linear_probes import PENALTIES, LinearProbes
from embodied_midtrain.diagnostics.probe import read_target
from embodied_midtrain.robots.hdf5 import ROBOSUITE_POSE

CHUNK = 10


def made(rows: int, dim: int, episodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Labels]]:
    rng = np.random.default_rng(0)
    each = rows // episodes
    tracks = {}
    for n in range(episodes):
        actions = np.cumsum(0.1 * rng.standard_normal((each, 7)), 0).astype(np.float32)
        shut, opened = sorted(rng.integers(1, each, 2))
        actions[:, 6] = -1
        actions[shut:opened, 6] = 1
        state = np.cumsum(0.1 * rng.standard_normal((each, 12)), 0).astype(np.float32)
        tracks["task", str(n)] = Track(f"do {n % 10}", actions, state)
    labels, _ = labels_of(tracks, ROBOSUITE_POSE, chunk=CHUNK, state="objects")
    known = np.concatenate(
        [
            np.concatenate([t.actions, t.state, np.tile(np.eye(10)[n % 10], (each, 1))], 1)
            for n, t in enumerate(tracks.values())
        ]
    ).astype(np.float32)
    mix = rng.standard_normal((known.shape[1], dim)).astype(np.float32)
    features = known @ mix + 3.0 * rng.standard_normal((len(known), dim), np.float32)
    episode = np.repeat(np.arange(episodes), each)
    return features, episode, np.tile(np.arange(each), episodes), labels


def ours(features: np.ndarray, episode: np.ndarray, frame: np.ndarray, labels: list[Labels], folds: int) -> Any:
    lengths = np.bincount(episode)
    fold = np.random.default_rng(0).permutation(len(lengths)) % folds
    probes = LinearProbes(features, episode, fold)
    at = rows_at(episode, frame, lengths, 0)
    return {one.name: read_target(probes, one, at, 0) for one in labels}


def peer(features: np.ndarray, episode: np.ndarray, labels: list[Labels], folds: int, run: int) -> dict[str, Any]:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.metrics import balanced_accuracy_score, r2_score
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    warnings.simplefilter("ignore", ConvergenceWarning)
    found: dict[str, Any] = {}
    splits = list(GroupKFold(folds, shuffle=True, random_state=0).split(features, groups=episode))[:run]
    for one in labels:
        values = np.concatenate(one.values)
        scores, started = [], time.process_time()
        for train, test in splits:
            own = (
                RidgeCV([p * len(train) for p in PENALTIES])
                if one.part is not None
                else LogisticRegression(class_weight="balanced", max_iter=200)
            )
            model = make_pipeline(StandardScaler(), own).fit(features[train], values[train])
            said = model.predict(features[test])
            measure = r2_score if one.part is not None else balanced_accuracy_score
            scores.append(measure(values[test], said))
        found[one.name] = (float(np.mean(scores)), (time.process_time() - started) * folds / run)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=576)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--folds-of-peer", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    features, episode, frame, labels = made(args.rows, args.dim, args.episodes)
    clock, processor, floor = [], [], []
    for _ in range(args.repeats):
        rows = torch.from_numpy(features)
        worked = time.process_time()
        rows.T @ rows
        floor.append(time.process_time() - worked)
        started, worked = time.perf_counter(), time.process_time()
        found = ours(features, episode, frame, labels, args.folds)
        clock.append(time.perf_counter() - started)
        processor.append(time.process_time() - worked)
    theirs = peer(features, episode, labels, args.folds, args.folds_of_peer)
    seconds = sum(own for _, own in theirs.values())
    columns = sum(len(one.part) if one.part is not None else len(one.parts) for one in labels)
    print(
        f"{len(features)} x {args.dim}, {len(labels)} targets ({columns} columns), {args.folds} folds, "
        f"{torch.get_num_threads()} threads"
    )
    print(
        f"ours   {statistics.median(clock):8.1f} s   ({statistics.median(processor):.1f} s of processor time, "
        "controls and intervals included)"
    )
    print(
        f"peer   {seconds:8.1f} s of processor time (scikit-learn, no controls, {args.folds_of_peer} of {args.folds} "
        "folds, scaled)"
    )
    print(f"ratio  {seconds / statistics.median(processor):8.1f}   of processor time")
    print(f"floor  {statistics.median(floor):8.2f} s of processor time (one product X^T X)")
    for name, own in found.items():
        print(f"{name:<13}{own['measure']:<10} ours {own['value']:.3f}   peer {theirs[name][0]:.3f}")


if __name__ == "__main__":
    main()
