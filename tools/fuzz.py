"""Mutated inputs for every reader: whatever they hold, a reader gives a clear error or counts and lists a skip.

    python -m tools.fuzz                        10,000 mutations of a small good file for each reader
    python -m tools.fuzz --readers parquet --count 500 --seed 1

A mutation flips, cuts, doubles or overwrites bytes of one of the input's files. Prints, for each reader, how often what
came of it: read, some skipped, refused; or an exception that is none of ours, a crash, a hang (it then exits with 1,
and the first such inputs are kept).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import select
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from embodied_midtrain.artifacts import Skips, StageError
from embodied_midtrain.config import ConfigError
from embodied_midtrain.episodes import ActionSpec, BadEpisode, Episode
from embodied_midtrain.robots import hdf5
from embodied_midtrain.robots.export import export_lerobot
from embodied_midtrain.robots.opening import open_robots
from embodied_midtrain.samples import BadSample
from embodied_midtrain.sources.opening import open_pool

WANTED = ("read", "skipped", "refused")
PATIENCE = 20
"""Seconds for one small input."""
MEMORY = Path("/dev/shm")
"""Where inputs lie: on a disk, writing them takes several times as long as all the rest."""
TURNS = 250
"""Inputs that one process reads."""
UNCAUGHT = "UNCAUGHT"
_SAID = (*WANTED, UNCAUGHT)
OURS = (StageError, ConfigError, BadSample, BadEpisode)
SPEC = ActionSpec(("x", "gripper"), "delta", "world", "none", 1, 1, (-1.0, -1.0), (1.0, 1.0), 10.0)


def picture(shade: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), (shade, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


class Made:
    """A few episodes."""

    name, spec = "made", SPEC

    def __iter__(self):
        rng = np.random.default_rng(0)
        for n in range(3):
            frames = rng.integers(0, 255, (4, 16, 16, 3), dtype=np.uint8)
            yield Episode(f"e{n}", "push", f"push {n}", frames, rng.uniform(-1, 1, (4, 2)).astype(np.float32))

    def fingerprint(self) -> str:
        return "made"


def rows() -> list[dict]:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "At (0.5, 0.25)."}]
    return [{"id": str(n), "image": f"{n}.png", "conversations": turns} for n in range(4)]


def conversations(root: Path, ending: str) -> Path:
    for n in range(4):
        (root / f"{n}.png").write_bytes(picture(n))
    text = json.dumps(rows(), indent=1) if ending == "json" else "\n".join(map(json.dumps, rows()))
    (root / f"pool.{ending}").write_text(text)
    return root / f"pool.{ending}"


def webdataset(root: Path) -> Path:
    with tarfile.open(root / "0.tar", "w") as archive:
        for n in range(4):
            for name, data in ((f"{n}.jpg", picture(n, "JPEG")), (f"{n}.json", b'{"caption": "a thing"}')):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return root / "0.tar"


def parquet(root: Path) -> Path:
    table = [{"id": str(n), "image": {"bytes": picture(n), "path": None}, "caption": "a thing"} for n in range(8)]
    pq.write_table(pa.Table.from_pylist(table), root / "a.parquet", row_group_size=3)
    return root / "a.parquet"


def folder(root: Path) -> Path:
    for n in range(3):
        (root / f"{n}.png").write_bytes(picture(n))
        (root / f"{n}.json").write_text(json.dumps({"question": "What?", "answer": "A thing."}))
    return root


def pool_file(root: Path) -> Path:
    conversations(root, "jsonl")
    (root / "pool.yaml").write_text("sources:\n  - {path: pool.jsonl, format: llava-665k, name: one, licence: MIT}\n")
    return root / "pool.yaml"


def lerobot(root: Path) -> Path:
    export_lerobot(Made(), root / "made")
    return root / "made"


def rlds(root: Path) -> Path:
    from tests.robots.test_rlds import episode, example, record, written

    return written(root / "r", [record(example(episode(n))) for n in range(3)])


def robomimic(root: Path) -> Path:
    with h5py.File(root / "a.hdf5", "w") as file:
        data = hdf5.write_header(file, task="push", instruction="push", spec=SPEC, environment={})
        for n, episode in enumerate(Made()):
            hdf5.write_demo(data, n, episode)
        hdf5.close_header(file, {})
    return root / "a.hdf5"


def calvin(root: Path) -> Path:
    from tests.robots.test_calvin import split

    return split(root / "training", [(2, 5), (10, 12)])


READERS: dict[str, tuple[Callable[[Path], Path], bool]] = {
    "conversations.json": (lambda root: conversations(root, "json"), True),
    "conversations.jsonl": (lambda root: conversations(root, "jsonl"), True),
    "webdataset": (webdataset, True),
    "parquet": (parquet, True),
    "folder": (folder, True),
    "pool file": (pool_file, True),
    "lerobot": (lerobot, False),
    "rlds": (rlds, False),
    "hdf5": (robomimic, False),
    "calvin": (calvin, False),
}
"""How each reader's input is made, and whether it is a pool."""


def mutate(path: Path, rng: random.Random) -> None:
    """Change the bytes of one file below (or of) `path`."""
    files = sorted(p for p in (path.rglob("*") if path.is_dir() else path.parent.rglob("*")) if p.is_file())
    # The file that was named as often as all others.
    chosen = path if path.is_file() and rng.random() < 0.5 else rng.choice(files)
    data = bytearray(chosen.read_bytes())
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        size = rng.choice((1, 1, 2, 8, 64))
        kind = rng.randrange(5)
        if kind == 0:
            data[at : at + size] = bytes(rng.randrange(256) for _ in range(min(size, len(data) - at)))
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + size]
        elif kind == 3:
            data[at:at] = data[max(0, at - size) : at] or b"\0"
        else:
            data[at : at + size] = rng.choice((b"\0", b"\xff", b"{", b"]", b'"', b"-1", b"1e999", b"null")) * size
    chosen.write_bytes(bytes(data))


def look(path: Path, pool: bool) -> str:
    """Read everything; what came of it in a word."""
    skips = Skips()
    try:
        if pool:
            for sample in open_pool(path, skips=skips):
                for one in sample.pictures:
                    try:
                        one.decode()
                    except BadSample as error:
                        skips.add(error.reason, sample.id)
        else:
            for episode in open_robots(path, skips):
                try:
                    episode.frames[np.arange(len(episode.frames))]
                except BadEpisode as error:
                    skips.add(error.reason, episode.id)
    except OURS:
        return "refused"
    return "skipped" if len(skips) else "read"


class Reading:
    """`look` in a process of its own, for libraries may hang or crash on damaged bytes.

    One process reads many inputs, since starting one takes longer than reading; a new one follows where it hung or
    died, and after `TURNS` inputs.
    """

    def __init__(self, pool: bool) -> None:
        self.pool = pool
        self.child = 0

    def __call__(self, path: Path) -> str:
        if not self.child:
            self._start()
        try:
            os.write(self.ask, f"{path}\n".encode())
        except BrokenPipeError:
            # It died of the input before, after it had answered.
            return f"CRASHED LATE ({-self.stop()})"
        ready, _, _ = select.select([self.answer], [], [], PATIENCE)
        said = os.read(self.answer, 1) if ready else b""
        self.turns -= 1
        if said and self.turns:
            return _SAID[said[0]]
        code = self.stop(not ready)
        return _SAID[said[0]] if said else f"CRASHED ({-code})" if ready else "HUNG"

    def _start(self) -> None:
        self.turns = TURNS
        asked, self.ask = os.pipe()
        self.answer, told = os.pipe()
        self.child = os.fork()
        if self.child:
            os.close(asked)
            os.close(told)
            return
        os.close(self.ask)
        os.close(self.answer)
        with os.fdopen(asked) as paths:
            for line in paths:
                try:
                    what = look(Path(line.rstrip("\n")), self.pool)
                except BaseException:
                    traceback.print_exc()
                    what = UNCAUGHT
                os.write(told, bytes([_SAID.index(what)]))
        os._exit(0)

    def stop(self, kill: bool = False) -> int:
        """End the process (it ends itself when nothing more is asked); its exit code."""
        if not self.child:
            return 0
        if kill:
            os.kill(self.child, signal.SIGKILL)
        os.close(self.ask)
        code = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])
        os.close(self.answer)
        self.child = 0
        return code


def fuzz(name: str, count: int, seed: int, keep: Path) -> tuple[Counter[str], int]:
    make, pool = READERS[name]
    rng = random.Random(f"{seed}:{name}")
    results: Counter[str] = Counter()
    faults = 0
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as place:
        good = Path(place) / "good"
        good.mkdir()
        opened = make(good).relative_to(good)
        assert look(good / opened, pool) == "read", f"the good input of {name} is not read"
        reading = Reading(pool)
        for number in range(count):
            # A name of its own, for readers keep what they know of a file by its name and time.
            root = Path(place) / f"bad{number}"
            shutil.copytree(good, root)
            mutate(root / opened, rng)
            what = reading(root / opened)
            results[what] += 1
            if what not in WANTED:
                faults += 1
                if faults <= 3:
                    shutil.copytree(root, keep / name.replace(" ", "-") / str(number), dirs_exist_ok=True)
            shutil.rmtree(root)
        reading.stop()
    return results, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="*", default=list(READERS), choices=list(READERS))
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"))
    args = parser.parse_args()

    warnings.simplefilter("ignore")
    bad = 0
    for name in args.readers:
        started = time.monotonic()
        results, faults = fuzz(name, args.count, args.seed, args.keep)
        bad += faults
        said = ", ".join(f"{n} {what}" for what, n in results.most_common())
        print(f"{name:<20} {said}   ({time.monotonic() - started:.0f} s)", flush=True)
    print("no uncaught exception" if not bad else f"{bad} inputs came to no good; the first are in {args.keep}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
