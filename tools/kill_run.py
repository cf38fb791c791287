"""Runs a recipe to its end, killed (SIGKILL) once in the middle of each stage, and compares the result.

    python tools/kill_run.py quickstart --straight runs/quickstart --out runs/killed

The run it is compared with must be one that nothing interrupted: its stages' seconds say where the middle is. Exits
with 1 where any artifact's files or any part of the summary differ.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from embodied_midtrain.artifacts import Artifact
from embodied_midtrain.recipes.layout import Layout
from embodied_midtrain.recipes.recipe import Recipe, load_recipe
from embodied_midtrain.report.summary import load_summary

PARTS = (
    "pool",
    "target",
    "estimator",
    "proximity",
    "mmd",
    "diversity",
    "selections",
    "rollouts",
    "comparisons",
)


def results(path: Path) -> dict[str, str]:
    """Hashes of an artifact's files, but for films: with several threads the last bit of an action may differ, which
    a film can show where no result does (seen once: one film of six, all outcomes and steps alike)."""
    files = Artifact.open(path).manifest["files"]
    return {name: digest for name, digest in files.items() if not name.startswith("videos/")}


def differences(recipe: Recipe, straight: Path, other: Path) -> list[str]:
    """Files of artifacts and parts of the summary that two runs of a recipe do not have alike."""
    found = []
    for (name, path), twin in zip(
        Layout(straight).artifacts(recipe).items(), Layout(other).artifacts(recipe).values(), strict=True
    ):
        if path.exists() != twin.exists():
            found.append(f"{name}: there in one of the runs only")
        elif path.exists():
            one, two = results(path), results(twin)
            found += [f"{name}/{file}" for file in sorted(one.keys() | two.keys()) if one.get(file) != two.get(file)]
    first, second = load_summary(straight), load_summary(other)
    return found + [f"summary: {part}" for part in PARTS if getattr(first, part) != getattr(second, part)]


def stage_at_work(out: Path) -> str | None:
    """The stage that a run is at, as the run's own record says it."""
    try:
        rows = json.loads((out / "stages.json").read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return next((name for name, row in rows.items() if row["state"] == "running"), None)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its session, and all that it started, as when a machine goes down."""
    below = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    # Ray's own processes lead sessions of their own.
    for child in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
    psutil.wait_procs(below, timeout=10)


def run_killed(command: list[str], out: Path, seconds: dict[str, float], seed: int) -> dict[str, float]:
    """Run `command` again and again until it ends by itself; the second at which each stage was killed.

    Raises:
        RuntimeError: where it fails by itself.
    """
    rng, killed = random.Random(seed), dict[str, float]()
    while True:
        process = subprocess.Popen(command, start_new_session=True)
        stage, since = None, time.monotonic()
        while process.poll() is None:
            now = stage_at_work(out)
            if now != stage:
                stage, since = now, time.monotonic()
                wait = rng.uniform(0.25, 0.6) * seconds.get(now or "", 0.0)
            if stage is not None and stage not in killed and time.monotonic() - since >= wait:
                kill(process)
                killed[stage] = time.monotonic() - since
                print(f"killed in {stage} after {killed[stage]:.1f} s", flush=True)
            time.sleep(0.01)
        if process.returncode == 0:
            return killed
        if process.returncode != -signal.SIGKILL:
            raise RuntimeError(f"it failed by itself, with {process.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--straight", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    seconds = {stage.name: stage.seconds for stage in load_summary(args.straight).stages}
    emt = Path(sys.executable).parent / "emt"
    started = time.monotonic()
    killed = run_killed([str(emt), "run", args.recipe, "--out", str(args.out)], args.out, seconds, args.seed)
    print(f"{len(killed)} of {len(seconds)} stages killed, {time.monotonic() - started:.0f} s in all")
    print("too short to be hit:", ", ".join(sorted(set(seconds) - set(killed))) or "none")
    found = differences(load_recipe(args.recipe), args.straight, args.out)
    print("\n".join(found) if found else "every artifact and every part of the summary is the same")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
