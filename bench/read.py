"""Samples per second read from WebDataset shards and from conversation JSON: ours against the usual loaders.

Peers: webdataset's own loader (`decode("pilrgb")`), and `datasets` (json, its Image feature) as a stream. All do the
same work: every record's id, texts and picture, the picture decoded by Pillow to RGB. Ours also checks: ids told apart,
members' and images' names kept inside, sizes limited, texts and turns looked through. For comparison, `datasets` on the
table that it had made of the JSON before, which it then need not read. Runs alternate in one process; the first round
warms the cache.

    python bench/read.py --pool runs/quickstart/pool --rows 3000
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import webdataset
from PIL import Image

from embodied_midtrain.allocation import keep_large_blocks
from embodied_midtrain.artifacts import Skips
from embodied_midtrain.sources.opening import open_pool

SIDE = 256
"""Of the pictures, as img2dataset makes them by default."""

Seen = tuple[int, int, int]
"""Records, characters of text, bytes of decoded pictures: equal for all who do the same work."""


def write(pool: Path, rows: int, out: Path) -> tuple[Path, Path]:
    """The pool's first samples with one picture, as shards and as JSON with files: their places."""
    folder = out / "images"
    folder.mkdir()
    records = []
    with webdataset.ShardWriter(f"{out}/%05d.tar", maxcount=1000, verbose=0) as shards:
        for sample in open_pool(pool, skips=Skips()):
            if len(sample.pictures) != 1 or any(turn.regions for turn in sample.turns):
                continue
            image = sample.pictures[0].decode()
            image.thumbnail((SIDE, SIDE))
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=95)
            name = f"{len(records):09d}"
            (folder / f"{name}.jpg").write_bytes(buffer.getvalue())
            said = "human", "gpt"
            texts = [t.text.replace("<image>", "").strip() for t in sample.turns[:2]]
            turns = [{"from": who, "value": text} for who, text in zip(said, texts, strict=True)]
            records.append({"id": name, "image": f"images/{name}.jpg", "conversations": turns})
            facts = {"caption": texts[1], "key": name, "status": "success", "width": image.width}
            shards.write({"__key__": name, "jpg": buffer.getvalue(), "json": facts, "txt": texts[1]})
            if len(records) == rows:
                break
    (out / "pool.json").write_text(json.dumps(records))
    return out / "*.tar", out / "pool.json"


def ours(path: Path) -> Seen:
    skips = Skips()
    count = texts = pixels = 0
    for sample in open_pool(path, skips=skips):
        count += 1
        texts += sum(len(turn.text) for turn in sample.turns)
        pixels += _bytes(sample.pictures[0].decode())
    assert not len(skips), skips.summary()
    return count, texts, pixels


def by_webdataset(path: Path) -> Seen:
    count = texts = pixels = 0
    shards = [str(p) for p in sorted(path.parent.glob(path.name))]
    prompt = len("Describe the image.")
    for row in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode("pilrgb"):
        assert row["__key__"] and row["json"]["caption"] == row["txt"]
        count += 1
        texts += len(row["txt"]) + prompt
        pixels += _bytes(row["jpg"])
    return count, texts, pixels


def by_datasets(made: Any) -> Seen:
    count = texts = pixels = 0
    for row in made:
        assert row["id"]
        count += 1
        texts += sum(len(turn["value"]) for turn in row["conversations"])
        pixels += _bytes(row["image"].convert("RGB"))
    return count, texts, pixels


def _bytes(image: Image.Image) -> int:
    assert image.mode == "RGB"
    return image.width * image.height * 3


def timed(runs: dict[str, Callable[[], Seen]], repeats: int) -> dict[str, float]:
    """Median seconds of each; they take turns, and all must see the same."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    seen = set()
    for _ in range(repeats + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            seen.add(run())
            seconds[name].append(time.perf_counter() - started)
    assert len(seen) == 1, f"they did not do the same work: {seen}"
    # The first round warms caches and is not counted.
    return {name: statistics.median(found[1:]) for name, found in seconds.items()}


def floor(images: list[Path], files: list[Path]) -> tuple[float, float]:
    """Seconds that reading the bytes and decoding the pictures take, one after another."""
    started = time.perf_counter()
    for path in files:
        path.read_bytes()
    reading = time.perf_counter() - started
    found = [path.read_bytes() for path in images]
    times = []
    for _ in range(3):
        started = time.perf_counter()
        for data in found:
            Image.open(io.BytesIO(data)).convert("RGB")
        times.append(time.perf_counter() - started)
    return reading, statistics.median(times)


def show(title: str, mine: float, peer: tuple[str, float], least: tuple[float, float], rows: int) -> float:
    print(title)
    print(f"  ours   {rows / mine:8.0f} samples/s")
    print(f"  peer   {rows / peer[1]:8.0f} samples/s   ({peer[0]})")
    print(f"  ratio  {peer[1] / mine:8.2f}")
    print(
        f"  floor  {rows / sum(least):8.0f} samples/s   (reading {least[0]:.2f} s, Pillow's decoding {least[1]:.2f} s)"
    )
    return peer[1] / mine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, default=Path("runs/quickstart/pool"))
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    keep_large_blocks()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as place:
        shards, conversations = write(args.pool, args.rows, Path(place))
        images = sorted((Path(place) / "images").iterdir())
        rows = len(images)
        sizes = np.array([path.stat().st_size for path in images])
        print(f"{rows} samples, JPEG of {SIDE} px at most, {sizes.mean() / 1024:.1f} KiB each")
        found = timed({"ours": lambda: ours(shards), "webdataset": lambda: by_webdataset(shards)}, args.repeats)
        least = floor(images, sorted(Path(place).glob("*.tar")))
        first = show("WebDataset", found["ours"], ("webdataset", found["webdataset"]), least, rows)

        # Its paths start from the working folder, ours from the file's.
        records = json.loads(conversations.read_text())
        far = Path(place) / "absolute.json"
        far.write_text(json.dumps([{**r, "image": str(Path(place) / r["image"])} for r in records]))
        options: dict[str, Any] = {"data_files": str(far), "split": "train", "cache_dir": f"{place}/cache"}
        prepared = datasets.load_dataset("json", **options).cast_column("image", datasets.Image())

        def streamed() -> Seen:
            stream = datasets.load_dataset("json", streaming=True, **options)
            return by_datasets(stream.cast_column("image", datasets.Image()))

        runs = {
            "ours": lambda: ours(conversations),
            "datasets": streamed,
            "prepared": lambda: by_datasets(prepared),
        }
        found = timed(runs, args.repeats)
        least = floor(images, [conversations, *images])
        second = show("conversation JSON", found["ours"], ("datasets", found["datasets"]), least, rows)
        print(f"  beside {rows / found['prepared']:8.0f} samples/s   (datasets, its table made before)")
        print(f"  ratio  {found['prepared'] / found['ours']:8.2f}")
    print(f"least ratio {min(first, second):.2f}, wanted 1")


if __name__ == "__main__":
    main()
