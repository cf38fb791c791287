"""One source of the pool in a process of its own: `python -m embodied_midtrain.sources.registry.work`.

Started by `build`, which writes the job as one line of JSON to its standard input and then leaves that open.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from embodied_midtrain.artifacts import DiskFull, Skips, StageError, atomic_path, write_json
from embodied_midtrain.samples import BadSample, Sample
from embodied_midtrain.sources.registry.source import RegistrySource, SourceUnavailable
from embodied_midtrain.sources.table import write_table


def load(spec: str) -> RegistrySource:
    """The source that "module:Class" names; ".module" is one of this package."""
    module, name = spec.split(":")
    source: type[RegistrySource] = getattr(importlib.import_module(module, __package__), name)
    return source()


def build_source(job: dict[str, Any]) -> dict[str, Any]:
    """Write the source's table; its facts and skips, or `{"error": ...}`, or `{"full": ...}` for a full disk."""
    started, skips = time.monotonic(), Skips()
    try:
        source = load(job["spec"])
        table = Path(job["table"])
        stream = source.samples(Path(job["cache"]), job["limit"], job["seed"], skips)
        with atomic_path(table) as temporary:
            count = write_table(temporary, _checked(stream, job["name"], job["limit"], skips))
        if not count:
            raise SourceUnavailable(f"it gave no samples ({skips.summary()})")
    except DiskFull as error:
        return {"full": str(error)}
    except StageError as error:
        return {"error": str(error)}
    except Exception as error:
        # Whatever fails in one source must not stop the others; the trace is in its log.
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}
    seconds = round(time.monotonic() - started, 2)
    facts = {"samples": count, "group": source.group, "licence": source.licence, "seconds": seconds}
    return {"facts": facts, "skipped": skips.rows}


def _checked(stream: Iterator[Sample], name: str, limit: int, skips: Skips) -> Iterator[Sample]:
    seen: set[str] = set()
    for sample in stream:
        try:
            sample.check()
            if sample.source != name:
                raise BadSample("wrong source", sample.source)
            if sample.id in seen:
                raise BadSample("duplicate id", sample.id)
        except BadSample as error:
            skips.add(error.reason, f"{name}/{sample.id}", error.detail)
            continue
        if len(seen) == limit:
            return
        seen.add(sample.id)
        yield sample


def _end_with(pipe: IO[str]) -> None:
    """End this process when the one that started it is gone."""
    pipe.read()
    os._exit(1)


def main() -> None:
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with, args=(sys.stdin,), daemon=True).start()
    # Pillow warns of large images that `decode_image` refuses and counts.
    warnings.simplefilter("ignore")
    write_json(Path(job["result"]), build_source(job))
    sys.stdout.flush()
    # The reading thread holds standard input: an orderly exit would wait for it.
    os._exit(0)


if __name__ == "__main__":
    main()
