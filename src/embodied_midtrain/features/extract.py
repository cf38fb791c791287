"""`emt embed`: one feature a sample (or robot frame) under a frozen backbone, on one machine or on many.

This process reads the pool, cuts it into windows, and commits each window's features as one shard when an engine
(`features.engines`) gives them back.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from embodied_midtrain.artifacts import (
    Artifact,
    ArtifactMismatch,
    Skips,
    StageError,
    StageRun,
    open_stage,
    refuse_if_bad,
    share_of,
    write_json,
)
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.episodes import Robots
from embodied_midtrain.features.engines import Elsewhere, EngineConfig, describe, elsewhere, run_windows
from embodied_midtrain.features.extractor import EmbedConfig, Embedded
from embodied_midtrain.features.items import (
    Stretch,
    Window,
    end_key,
    part_key,
    pool_stretches,
    target_stretch,
    windows_of,
)
from embodied_midtrain.features.pace import Pace
from embodied_midtrain.features.reuse import take_over
from embodied_midtrain.features.store import write_shard
from embodied_midtrain.progress import Bar, console, progress_bar
from embodied_midtrain.robots.opening import open_robots
from embodied_midtrain.samples import Pool
from embodied_midtrain.sources.opening import TablePool, open_pool

USUAL, HERE = EmbedConfig(), EngineConfig()


def embed(
    out: Path,
    config: EmbedConfig,
    *,
    backbone: Backbone | Elsewhere,
    pool: Pool | None = None,
    target: Robots | None = None,
    engine: EngineConfig = HERE,
    extend: Path | None = None,
    skips: Skips | None = None,
    total: int | None = None,
    max_bad: float = 0.1,
    overwrite: bool = False,
) -> Artifact:
    """Embed a pool's samples or a target's frames into a feature store at `out`.

    Args:
        backbone: one that is here, which is then used here; or one that the engine's workers open.
        engine: where it is computed; no part of what the store is, so that another one can go on.
        extend: an older store; sources that it has as they are now are taken over from it.
        skips: the list that the pool's or target's reader adds to; it goes into the artifact.
        total: how many rows there are, for the time left; by default the pool's length, where it has one.
        max_bad: share of rows that may be left out.

    Raises:
        ValueError: unless exactly one of `pool` and `target` is given, or on layers that the backbone has not.
        StageError: where no row could be embedded, too many are bad, or workers cannot do their work.
    """
    if (pool is None) == (target is None):
        raise ValueError("give either a pool or a target to embed, and not both")
    config.check_layers(backbone.layers)
    given = pool if pool is not None else target
    assert given is not None
    inputs = {"backbone": backbone.fingerprint(), ("pool" if pool is not None else "target"): given.fingerprint()}
    with open_stage(out, "embed", config, inputs, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        if pool is not None:
            stretches = pool_stretches(pool)
        else:
            stretches = [target_stretch(target, config.frames_per_episode, config.prompt)]  # type: ignore[arg-type]
        if extend is not None:
            console.print(take_over(run, extend, stretches).summary(), highlight=False, soft_wrap=True)
        if total is None and isinstance(pool, TablePool):
            total = len(pool)
        with progress_bar(f"embed {given.name}", total) as bar:
            book = Book(run, skips if skips is not None else Skips(), max_bad, total, bar)
            todo = book.todo(stretches, config.part_size)
            for window, embedded in run_windows(backbone, config, engine, todo):
                book.commit(window, embedded)
            book.close()
        if not book.used:
            why = Skips([row for record in run.parts() for row in record["skipped"]]).summary()
            raise StageError(
                f"nothing in {given.name} could be embedded (skipped: {why}): "
                + ("a target with no frames cannot be compared with." if target is not None else "is the pool empty?")
            )
        dim = backbone.hidden * len(config.read)
        write_json(run.file("store.json"), {"backbone": backbone.name, "rows": book.used, "dim": dim})
        return run.finish({"used": book.used})


class Book:
    """What is done and what is left to do; its memory does not grow with the pool."""

    def __init__(self, run: StageRun, reader: Skips, max_bad: float, total: int | None, bar: Bar) -> None:
        self.used = 0
        self._run = run
        self._reader = reader
        self._max_bad = max_bad
        self._bar = bar
        self._pace = Pace(run.log("progress.json"), total)
        self._left_out = 0
        self._unread = 0
        """Records of finished sources that their reader left out, in this run or before."""
        self._settled = 0
        """Rows of the reader's list that are among these."""

    @property
    def bad(self) -> int:
        return self._left_out + self._unread + len(self._reader) - self._settled

    def todo(self, stretches: Sequence[Stretch], size: int) -> Iterator[Window]:
        """Windows that have no part yet. A source that is finished is not even read."""
        for number, stretch in enumerate(stretches):
            if self._finished(number):
                continue
            count = 0
            for window in windows_of(stretch.items(), number, size):
                count += 1
                record = self._run.part(window.key)
                if record is None:
                    yield window
                else:
                    self._count(record)
            facts = {"name": stretch.name, "fingerprint": stretch.fingerprint, "parts": count}
            unread = Skips(self._reader.rows[self._settled :])
            self._run.commit_part(end_key(number), facts, skips=unread)
            self._settled += len(unread)
            self._unread += len(unread)

    def _finished(self, number: int) -> bool:
        end = self._run.part(end_key(number))
        if end is None:
            return False
        records = [self._run.part(part_key(number, window)) for window in range(end["parts"])]
        if None in records:
            return False
        for record in records:
            assert record is not None
            self._count(record)
        self._unread += len(end["skipped"])
        return True

    def _count(self, record: dict) -> None:
        self.used += record["used"]
        self._left_out += len(record["skipped"])
        self._bar.advance(record["used"] + len(record["skipped"]))

    def commit(self, window: Window, embedded: Embedded) -> None:
        """Write a window's shard and record."""
        skips = Skips()
        for number, reason, detail in embedded.faults:
            skips.add(reason, "/".join(window.items[number].key), detail)
        finite = np.asarray(np.isfinite(embedded.features).all(axis=1))
        for key in itertools.compress(embedded.keys, (~finite).tolist()):
            skips.add("nan feature", "/".join(key))
        kept = list(itertools.compress(embedded.keys, finite.tolist()))
        writers: dict[str, Callable[[Path], None]] = {}
        if kept:
            features = embedded.features[finite]
            writers[f"shard-{window.key}.parquet"] = lambda path: write_shard(path, kept, features)
        self._count(self._run.commit_part(window.key, {"used": len(kept)}, writers, skips))
        self._bar.say(self._pace.add(len(window.items), self.used, self.bad))
        self.judge()

    def close(self) -> None:
        """Raises: as `judge`."""
        self._pace.write(self.used, self.bad)
        self.judge()

    def judge(self) -> None:
        """Raises: StageError, where too many rows are bad."""
        refuse_if_bad(self._run, self.used, self.bad, self._max_bad, self._faults)

    def _faults(self) -> Iterator[dict[str, str]]:
        for record in self._run.parts():
            yield from record["skipped"]
        yield from self._reader.rows[self._settled :]


def embed_command(
    out: Path,
    config: EmbedConfig = USUAL,
    engine: EngineConfig = HERE,
    pool: str | None = None,
    images: Path | None = None,
    target: Path | None = None,
    camera: str | None = None,
    backbone: tuple[str, ...] = ("compact",),
    extend: Path | None = None,
    max_bad: str = "10%",
    overwrite: bool = False,
) -> None:
    """Make features of a pool's samples, or of a target's frames, under a frozen backbone.

    Give the same command again after an interruption: finished shards are kept, also where another engine goes on.

    Examples:
        emt embed --pool runs/quickstart/pool --out runs/mine/pool-features
        emt embed --pool data/llava.json --images data/images --out runs/mine/pool-features
        emt embed --pool "data/cc12m/{00000..01242}.tar" --out runs/mine/pool-features --max-bad 1%
        emt embed --target runs/quickstart/demos --out runs/mine/target-features
        emt embed --target data/bridge_dataset/1.0.0 --camera image_0 --out runs/mine/target-features
        emt embed --target runs/quickstart/demos --layers 6 12 18 --pooling image --out runs/mine/probed
        emt embed --pool my-pool.yaml --out runs/mine/grown --extend runs/mine/pool-features
        emt embed --pool my-pool.yaml --out runs/mine/features --backbone compact Qwen/Qwen3-VL-2B-Instruct
        emt embed --pool my-pool.yaml --out runs/mine/pool-features --devices cuda:0,cuda:1
        emt embed --pool my-pool.yaml --out runs/mine/pool-features --engine ray --address auto

    Args:
        out: folder for the feature store; with several backbones, for one store a backbone, called after it.
        pool: a pool artifact; conversations (.json, .jsonl), WebDataset shards, Parquet files or a folder of images
            with captions, as file, folder, pattern or URL; or a YAML file that names several sources.
        images: folder that image paths start from.
        target: robot data: an 'emt demos' artifact, HDF5 (robomimic, LIBERO), or the folder of a LeRobot, RLDS or
            CALVIN data set.
        camera: which pictures of the target to take, where it holds several.
        backbone: "compact", or the name or folder of a transformers image-text-to-text model; or several of these.
        extend: a finished store of a pool that shares sources with this one: those that have not changed are taken
            over, the others are computed.
        max_bad: share of rows that may be left out; past it the run stops (what was finished is kept).
        overwrite: replace a result that was made from other inputs or settings.
    """
    for name, folder in zip(backbone, _folders(out, backbone), strict=True):
        # Opened anew for each: a pool notes its faults once.
        skips = Skips()
        opened_pool = open_pool(pool, images=images, skips=skips) if pool else None
        opened_target = open_robots(target, skips, camera=camera) if target else None
        try:
            artifact = embed(
                folder,
                config,
                backbone=describe(name) if elsewhere(engine) else load_backbone(name),
                pool=opened_pool,
                target=opened_target,
                engine=engine,
                extend=None if extend is None else extend / folder.relative_to(out),
                skips=skips,
                max_bad=share_of(max_bad),
                overwrite=overwrite,
            )
        except ArtifactMismatch as error:
            hint = f"\nWhere the pool grew: --extend {folder} with another --out computes only what is new."
            raise ArtifactMismatch(f"{error}{hint if pool and 'inputs pool' in str(error) else ''}") from error
        print(f"{artifact.counts['used']} features in {folder}; skipped: {artifact.counts['skipped'] or 'none'}")


def _folders(out: Path, backbones: Sequence[str]) -> list[Path]:
    """Where each backbone's store goes."""
    if len(backbones) == 1:
        return [out]
    names = [Path(name).name for name in backbones]
    if len(set(names)) < len(names) or not names:
        raise StageError(f"backbones {', '.join(backbones) or '(none)'}: give each a call and an --out of its own.")
    return [out / name for name in names]
