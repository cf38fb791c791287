"""Extraction at scale: a sample's cost and the peak memory as a pool grows, and Ray against the local engine.

    python -m bench.extract                                   1 k, 10 k and 100 k samples, then 8,192 on each engine
    python -m bench.extract --sizes 1000 10000 --rows 4096

The backbone is a random one of a few thousand weights, so that what is measured is the machinery: WebDataset shards
read, pictures decoded, rows batched, shards committed, hashed. Each run is a process of its own; sizes and engines
alternate; medians. Beside seconds stand processor seconds, which a busy machine disturbs less. Rates of engines are
from the first part that is committed to the last, so that what a start costs (shown apart) does not count; they
are compared with the local engine in as many processes.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from embodied_midtrain.artifacts import PARTS, Skips
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.features.engines import EngineConfig, describe, elsewhere
from embodied_midtrain.features.extract import embed
from embodied_midtrain.features.extractor import EmbedConfig, encode
from embodied_midtrain.features.items import pool_stretches
from embodied_midtrain.sources.opening import open_pool
from tests import tiny

A_SHARD = 1000
CONFIG = EmbedConfig(precision="fp32")
ENGINES = {
    # One thread: two only wait for each other over matrices as small as these.
    "this process": EngineConfig(threads=1),
    "two processes": EngineConfig(devices=("cpu", "cpu"), threads=1),
    "ray, two workers": EngineConfig(engine="ray", workers=2, threads=1),
}


def make(folder: Path, rows: int) -> Path:
    """Shards of captioned noise; those that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(64):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    for first in range(0, rows, A_SHARD):
        path = folder / f"{first // A_SHARD:05d}.tar"
        if not path.is_file():
            with tarfile.open(path.with_suffix(".part"), "w") as archive:
                for n in range(first, min(rows, first + A_SHARD)):
                    for ending, data in (("png", pictures[n % 64]), ("txt", b"a thing " * (1 + n % 7))):
                        info = tarfile.TarInfo(f"{n:08d}.{ending}")
                        info.size = len(data)
                        archive.addfile(info, io.BytesIO(data))
            path.with_suffix(".part").rename(path)
    return folder


def one_run(folder: Path, shards: int, engine: str, backbone: str, out: Path) -> dict[str, float]:
    """What a process of its own does and measures."""
    settings = ENGINES[engine]
    opened = describe(backbone) if elsewhere(settings) else load_backbone(backbone)
    skips = Skips()
    if isinstance(opened, Backbone):
        # What torch and transformers do once in a process is not a cost of the samples.
        embed(out / "warm", CONFIG, backbone=opened, pool=open_pool(f"{folder}/00000.tar", skips=skips))
    shutil.rmtree(out / "run", ignore_errors=True)
    pool = open_pool(f"{folder}/{{00000..{shards - 1:05d}}}.tar", skips=skips)
    started, busy = time.perf_counter(), time.process_time()
    artifact = embed(out / "run", CONFIG, backbone=opened, pool=pool, engine=settings)
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    rows = artifact.counts["used"]
    times = sorted(path.stat().st_mtime for path in (out / "run" / PARTS).glob("*-0*.json"))
    return {
        "rows": rows,
        "seconds": seconds,
        "busy": busy,
        "rate": CONFIG.part_size * (len(times) - 1) / max(1e-9, times[-1] - times[0]),
        "start": times[0] - (time.time() - seconds),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def floor(folder: Path, backbone: str) -> tuple[float, float]:
    """Milliseconds a sample of reading the pool alone, and of the forward passes alone."""
    model = load_backbone(backbone)
    torch.set_num_threads(1)
    started = time.perf_counter()
    (stretch,) = pool_stretches(open_pool(f"{folder}/00000.tar", skips=Skips()))
    items = list(stretch.items())
    reading = time.perf_counter() - started
    ready = [item.render(model) for item in items[: CONFIG.part_size]]
    times = []
    for _ in range(5):
        started = time.perf_counter()
        encode(model, ready, CONFIG)
        times.append(time.perf_counter() - started)
    return 1e3 * reading / len(items), 1e3 * min(times) / len(ready)


def apart(args: argparse.Namespace, rows: int, engine: str) -> dict[str, float]:
    words = ["--child", engine, "--sizes", str(rows), "--folder", str(args.folder), "--backbone", args.backbone]
    done = subprocess.run([sys.executable, "-m", "bench.extract", *words], check=True, capture_output=True, text=True)
    facts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return facts


def middle(runs: list[dict[str, float]], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--rows", type=int, default=8192, help="of the comparison of engines")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of engines, and of all sizes but the largest")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-extract"))
    parser.add_argument("--backbone", default="")
    parser.add_argument("--child", default="")
    args = parser.parse_args()
    if args.child:
        shards = -(-args.sizes[0] // A_SHARD)
        print(json.dumps(one_run(args.folder / "pool", shards, args.child, args.backbone, args.folder / "out")))
        return

    args.backbone = str(tiny.folder("compact"))
    pool = make(args.folder / "pool", max(*args.sizes, args.rows))
    runs: dict[int, list[dict[str, float]]] = {size: [] for size in sorted(args.sizes)}
    for number in range(args.repeats):
        for size in runs:
            if size < max(runs) or number == args.repeats // 2:
                runs[size].append(apart(args, size, "this process"))
    print(f"{'samples':>10}{'ms a sample':>14}{'busy ms':>10}{'peak MiB':>10}")
    for size, some in runs.items():
        each = 1e3 / size
        wall, busy, peak = middle(some, "seconds") * each, middle(some, "busy") * each, middle(some, "peak")
        print(f"{size:>10}{wall:>14.3f}{busy:>10.3f}{peak:>10.0f}", flush=True)
    for name, word in (("seconds", "cost"), ("busy", "busy"), ("peak", "peak")):
        share = [middle(some, name) / (1 if name == "peak" else size) for size, some in runs.items()]
        print(f"ratio {word:<6}{share[-1] / share[0]:8.3f}   (largest to smallest pool)")
    reading, passes = floor(pool, args.backbone)
    print(f"floor {reading:14.3f} ms reading the pool alone, {passes:.3f} ms the forward passes alone")

    results: dict[str, list[dict[str, float]]] = {name: [] for name in ENGINES}
    for _ in range(args.repeats):
        for name, some in results.items():
            some.append(apart(args, args.rows, name))
    ours = middle(results["two processes"], "rate")
    print(f"\n{'engine':<18}{'rows/s':>8}{'of local':>10}{'start s':>9}{'whole s':>9}")
    for name, some in results.items():
        rate = middle(some, "rate")
        print(f"{name:<18}{rate:>8.0f}{rate / ours:>10.2f}{middle(some, 'start'):>9.1f}{middle(some, 'seconds'):>9.1f}")


if __name__ == "__main__":
    main()
