"""Windows on a Ray cluster: actors that hold the backbone, each with two windows at a time.

Actors and not Ray Data: the stream comes from this process, where ids are told apart and faults counted in the order
of the pool, windows that are done are left out before anything is read into the cluster, and each result is committed
when it arrives. Ray Data would want the whole pool as blocks of its own first.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.extras import require
from embodied_midtrain.features.engines import Done, Elsewhere, EngineConfig, Job, cores
from embodied_midtrain.features.extractor import EmbedConfig, Embedded, Extractor
from embodied_midtrain.features.items import Item, Window
from embodied_midtrain.progress import console
from embodied_midtrain.samples import BadSample

MOST_THREADS = 4
"""Of a worker on CPUs: more workers with fewer threads compute more."""
PATIENCE = 60
"""Seconds without any worker before the user is told what is waited for."""
LOSSES = 3
"""Times that a worker may be lost, for each that was wanted, before the run stops."""
_HELD = 2


class RayWorker:
    """One actor. Two calls run at a time: one decodes while the other computes."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._extractor: Extractor | None = None
        self._opening, self._computing = threading.Lock(), threading.Lock()

    def hello(self) -> str:
        """Open the backbone; the node's name."""
        self._open()
        return socket.gethostname()

    def _open(self) -> Extractor:
        with self._opening:
            if self._extractor is None:
                self._extractor = self._job.open(None, f"the node {socket.gethostname()}")
            return self._extractor

    def embed(self, items: Sequence[Item]) -> Embedded:
        extractor = self._open()
        started = extractor.begin(items)
        with self._computing:
            return extractor.finish(started)


def on_ray(backbone: Elsewhere, config: EmbedConfig, settings: EngineConfig, windows: Iterator[Window]) -> Done:
    """Embed windows on a cluster, or on a Ray that is started here and ends with the last window.

    Raises:
        StageError: no Ray, no cluster, no room for a worker, or workers that cannot do their work.
    """
    ray = require("ray", "ray")
    with connected(ray, settings.address):
        count, cpus, gpus = shares(ray.cluster_resources(), least_cores(ray), settings)
        job = Job(backbone, config, cpus, settings.decoders)
        actor = ray.remote(RayWorker).options(num_cpus=cpus, num_gpus=gpus, max_concurrency=_HELD)
        crew = Crew(ray, lambda: actor.remote(job), count, f"{cpus} cores and {gpus:g} GPUs")
        try:
            yield from crew.work(windows)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, StageError):
                raise StageError(str(error.cause)) from error
            raise StageError(f"a Ray worker failed: {_last_line(error)} What was finished is kept.") from error
        except ray.exceptions.RayError as error:
            if "No module named" in str(error):
                raise StageError(
                    f"a Ray worker cannot import this package ({_last_line(error)}): install the same "
                    "embodied-midtrain on every node."
                ) from error
            raise StageError(
                f"{crew.lost} Ray workers were lost, the last one so: {_last_line(error)} What was finished is kept: "
                "give the command again."
            ) from error
        finally:
            crew.dismiss()


def _last_line(error: Exception) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)


@contextmanager
def connected(ray: Any, address: str) -> Iterator[None]:
    """Inside, Ray is there; one that was there before stays.

    Raises:
        StageError: nothing answers at the address.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # When one worker fails, the others' tracebacks say the same again.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # By default Ray's workers yield to every other process, and starve beside one that is as busy as they are.
    os.environ.setdefault("RAY_worker_niceness", "0")
    where = address or os.environ.get("RAY_ADDRESS", "") or "local"
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if where == "local":
        options.update(num_cpus=cores(), include_dashboard=False)
    try:
        ray.init(address=where, **options)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise StageError(
            f"no Ray cluster answers at {where} ({_last_line(error)}): start one with 'ray start --head', give its "
            "--address, or leave it out to use this machine alone. A cluster with a token wants it here too "
            "(RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH)."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def least_cores(ray: Any) -> int:
    """Of the cluster's smallest node that takes work."""
    counts = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    # A head node often takes no work.
    return min((count for count in counts if count), default=0)


def shares(total: dict[str, float], least: int, settings: EngineConfig) -> tuple[int, int, float]:
    """How many workers there are, and the cores and GPUs of each.

    Args:
        total: CPU and GPU of the cluster.
        least: cores of its smallest node.

    Raises:
        StageError: where the cluster has no room for one.
    """
    have_cpus, have_gpus = int(total.get("CPU", 0)), total.get("GPU", 0.0)
    gpus = settings.gpus if settings.gpus >= 0 else float(have_gpus > 0)
    threads = settings.threads or max(1, min(MOST_THREADS, least))
    if threads > have_cpus or gpus > have_gpus:
        raise StageError(
            f"a worker needs {threads} cores and {gpus:g} GPUs, the cluster has {have_cpus} and {have_gpus:g}: "
            "give --threads and --gpus that fit, or start more nodes."
        )
    fit = have_cpus // threads
    return settings.workers or max(1, min(fit, int(have_gpus / gpus)) if gpus else fit), threads, gpus


class Crew:
    """Workers on a cluster. One that is lost with its node is replaced, and its windows are done again.

    Ray's own retries are not used: they are spent within seconds on a node that does not answer any more.

    Args:
        hire: starts a worker, where and when there is room for it.
        needs: of a worker, in words.
    """

    def __init__(self, ray: Any, hire: Callable[[], Any], count: int, needs: str) -> None:
        self.lost = 0
        self._ray = ray
        self._hire = hire
        self._needs = needs
        self._most_lost = LOSSES * count
        self._opened: list[Any] = []
        self._running: dict[Any, tuple[Any, Window | None]] = {}
        """Calls, their worker and window; none while it opens its backbone: it gets windows from then on."""
        self._again: list[Window] = []
        self._ended = False
        for _ in range(count):
            self._start()

    def _start(self) -> None:
        worker = self._hire()
        self._running[worker.hello.remote()] = (worker, None)

    def work(self, windows: Iterator[Window]) -> Done:
        """Raises: RayError, StageError."""
        told = False
        while not self._ended or self._again or any(window is not None for _, window in self._running.values()):
            ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=PATIENCE)
            if not (ready or self._opened or told):
                console.print(f"waiting for a Ray worker: each needs {self._needs}, and a backbone takes time to load")
                told = True
            for reference in ready:
                # Calls of a worker that was lost have gone with it.
                worker, window = self._running.pop(reference, (None, None))
                if worker is None:
                    continue
                try:
                    result = self._ray.get(reference)
                except self._ray.exceptions.RayTaskError:
                    raise
                except self._ray.exceptions.RayError as error:
                    self._replace(worker, window, error)
                    self._feed(windows)
                    continue
                if window is None:
                    self._opened.append(worker)
                self._feed(windows)
                if window is not None:
                    _refuse_unreachable(window, result)
                    yield window, result

    def _feed(self, windows: Iterator[Window]) -> None:
        """Give every worker as many windows as it may hold; those of a lost worker first."""
        held = Counter(id(worker) for worker, _ in self._running.values())
        for worker in self._opened:
            for _ in range(_HELD - held[id(worker)]):
                window = self._again.pop() if self._again else next(windows, None)
                if window is None:
                    self._ended = True
                    return
                items = [item.packed() for item in window.items]
                self._running[worker.embed.remote(items)] = (worker, window)

    def _replace(self, worker: Any, window: Window | None, error: Exception) -> None:
        self.lost += 1
        if self.lost > self._most_lost or "No module named" in str(error):
            raise error
        others = [reference for reference, (other, _) in self._running.items() if other is worker]
        windows = [window, *(self._running.pop(reference)[1] for reference in others)]
        self._again += [one for one in windows if one is not None]
        self._opened = [one for one in self._opened if one is not worker]
        console.print(f"a Ray worker was lost; its windows are done again ({_last_line(error)})", highlight=False)
        self._start()

    def dismiss(self) -> None:
        # Those that still open end with their handles; killed, Ray would print an error for each.
        for worker in self._opened:
            self._ray.kill(worker)
        self._running.clear()


UNREAD = ("missing image", "unreadable image")


def _refuse_unreachable(window: Window, result: Embedded) -> None:
    """A file that a node misses and this machine has is no fault of the data."""
    for number, reason, detail in result.faults:
        if reason in UNREAD:
            try:
                window.items[number].look()
            except BadSample:
                continue
            raise StageError(
                f"a Ray worker cannot read what this machine can ({detail}): paths must be reachable from every node, "
                "such as a shared folder at the same place. What was finished is kept."
            )
