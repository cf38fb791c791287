"""Kills `emt embed` (every engine) and `emt select` at random moments with SIGKILL, goes on, and compares the result.

    python -m tools.kill_stage --pool runs/quickstart/pool --target runs/quickstart/demos --out runs/killed
    python -m tools.kill_stage --pool my.jsonl --target my-robot --rows 0 --kills 3 --out runs/killed --ways ray select

Each way is killed as often as `--kills` says, each time at a random moment of what an uninterrupted run takes, and goes
on until it ends; where that is too soon for all kills, it begins again in a new folder. Every result is compared, file
by file, with that of one uninterrupted run of the local engine. In the way "engines in turn" each life uses another
engine. Exits with 1 where any file differs.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embodied_midtrain.artifacts import MANIFEST, PARTS, Artifact, Skips, open_stage
from embodied_midtrain.sources.opening import POOL_STAGE, TablePool, open_pool
from embodied_midtrain.sources.table import read_table, write_table
from tools.kill_run import kill, results

ENGINES = {
    "this process": ["--engine", "local"],
    "two processes": ["--devices", "cpu,cpu"],
    "ray": ["--engine", "ray"],
}
TURNS = "engines in turn"


@dataclass
class Way:
    """One way to make an artifact: its commands, one a life, in turn."""

    name: str
    commands: list[list[str]]
    straight: Path
    seconds: float
    """Of an uninterrupted run, after the folder is opened: starting workers, then work."""
    moments: list[str] = field(default_factory=list)
    rounds: int = 0
    different: list[str] = field(default_factory=list)


def emt(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "embodied_midtrain.cli", *map(str, words)]


def small_pool(path: Path, rows: int, out: Path) -> None:
    """The first `rows` samples of each source of a pool artifact, as a pool artifact."""
    pool = open_pool(path, skips=Skips())
    if not isinstance(pool, TablePool):
        raise SystemExit(f"{path} is no folder of 'emt pool build'; give --rows 0 to take it as it is")
    with open_stage(out, POOL_STAGE, {"rows": rows}, {"pool": pool.fingerprint()}) as run:
        if not run.done:
            run.file("samples").mkdir(exist_ok=True)
            counts = {
                table.stem: write_table(run.file(f"samples/{table.name}"), itertools.islice(read_table(table), rows))
                for table in pool.tables()
            }
            run.finish({"used": sum(counts.values()), "sources": {k: {"samples": n} for k, n in counts.items()}})


def opened_at(process: subprocess.Popen[bytes], out: Path) -> float:
    """When the stage has opened its folder (or ended): from here on it works."""
    before = (out / MANIFEST).stat().st_mtime_ns if (out / MANIFEST).is_file() else None
    lock = out / ".lock"
    while process.poll() is None:
        # A resumed stage does not write its manifest before the end; its lock shows that it is at work.
        if lock.is_file() and _locked_by(lock, process.pid):
            break
        if before is None and (out / MANIFEST).is_file():
            break
        time.sleep(0.005)
    return time.monotonic()


def _locked_by(lock: Path, pid: int) -> bool:
    inode = str(lock.stat().st_ino)
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(row[5].endswith(f":{inode}") and row[4] == str(pid) for row in rows if len(row) > 5)


def run_straight(command: Sequence[str], out: Path) -> float:
    """Seconds of work after the folder is opened."""
    process = subprocess.Popen([*command, "--out", str(out)])
    started = opened_at(process, out)
    if process.wait():
        raise SystemExit(f"{' '.join(command)} failed by itself, with {process.returncode}")
    return time.monotonic() - started


def run_killed(way: Way, folder: Path, kills: int, rng: random.Random) -> None:
    """Live until done, be killed `kills` times in all, compare after every round."""
    commands = itertools.cycle(way.commands)
    while len(way.moments) < kills or not way.rounds:
        out = folder / f"round-{way.rounds}"
        shutil.rmtree(out, ignore_errors=True)
        killed_here = False
        while True:
            process = subprocess.Popen([*next(commands), "--out", str(out)], start_new_session=True)
            started = opened_at(process, out)
            wait = rng.uniform(0, way.seconds) if len(way.moments) < kills else float("inf")
            while process.poll() is None and time.monotonic() - started < wait:
                time.sleep(0.002)
            if process.poll() is None:
                kill(process)
                killed_here = True
                parts = len(list((out / PARTS).glob("*.json"))) if (out / PARTS).is_dir() else 0
                way.moments.append(f"{time.monotonic() - started:.2f} s/{parts}")
            elif process.returncode == 0:
                if not killed_here:
                    # On a busy machine the first run may have been a slow one.
                    way.seconds = max(0.5, min(way.seconds, time.monotonic() - started))
                break
            else:
                raise SystemExit(f"{way.name} failed by itself, with {process.returncode}")
        way.rounds += 1
        way.different += differences(way.straight, out)


def differences(straight: Path, other: Path) -> list[str]:
    """Files of two artifacts that differ, and whether their fingerprints do."""
    one, two = results(straight), results(other)
    found = [f"{other}/{name}" for name in sorted(one.keys() | two.keys()) if one.get(name) != two.get(name)]
    if Artifact.open(straight).fingerprint != Artifact.open(other).fingerprint:
        found.append(f"{other}: fingerprint")
    return found


def table(ways: Sequence[Way]) -> str:
    lines = [f"{'way':<24}{'kills':>6}{'rounds':>8}  {'result':<12}after (s of work / parts then)"]
    for way in ways:
        verdict = f"{len(way.different)} differ" if way.different else "equal"
        lines.append(f"{way.name:<24}{len(way.moments):>6}{way.rounds:>8}  {verdict:<12}{', '.join(way.moments)}")
    return "\n".join([*lines, *(file for way in ways for file in way.different)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=25, help="of each source of the pool; 0: the pool as it is")
    parser.add_argument("--backbone", default="compact")
    parser.add_argument("--part-size", type=int, default=16)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--ways", nargs="*", default=[*ENGINES, TURNS, "select"])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    pool = args.pool
    if args.rows:
        pool = args.out / "pool"
        small_pool(args.pool, args.rows, pool)
    common = ["embed", "--backbone", args.backbone, "--part-size", str(args.part_size)]
    embed = emt(*common, "--pool", pool)
    features, target, selected = (args.out / name for name in ("features", "target", "selected"))
    run_straight(embed, features)
    ways = []
    for name, words in ENGINES.items():
        if name in args.ways or (name == "ray" and TURNS in args.ways):
            straight = args.out / f"straight-{name.replace(' ', '-')}"
            ways.append(Way(name, [embed + words], features, run_straight(embed + words, straight)))
            ways[-1].different += differences(features, straight)
    if TURNS in args.ways:
        ways.append(Way(TURNS, [embed + words for words in ENGINES.values()], features, ways[-1].seconds))
    if "select" in args.ways:
        run_straight(emt(*common, "--target", args.target), target)
        select = emt("select", "--pool", features, "--target", target, "--k", "50")
        ways.append(Way("select", [select], selected, run_straight(select, selected)))
    ways = [way for way in ways if way.name in args.ways]
    rng = random.Random(args.seed)
    for way in ways:
        run_killed(way, args.out / way.name.replace(" ", "-"), args.kills, rng)
        print(table([way]), flush=True)
    print("\n" + table(ways))
    sys.exit(any(way.different for way in ways))


if __name__ == "__main__":
    main()
