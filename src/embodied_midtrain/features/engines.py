"""Where windows are computed: in this process, in one process a device, or on Ray.

Every engine takes windows as it has room for them and gives each back with its features, in whatever order they
become ready. What is computed is the same, so that a run begun with one can be finished with another.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Literal

import torch

from embodied_midtrain import __version__
from embodied_midtrain.artifacts import StageError
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.features.extractor import EmbedConfig, Embedded, Extractor, Pipeline
from embodied_midtrain.features.items import Window
from embodied_midtrain.workers import Worker, WorkerDied, WorkerFailed

Done = Iterator[tuple[Window, Embedded]]


@dataclass(frozen=True)
class EngineConfig:
    """Where features are computed; none of this changes the result."""

    engine: Literal["local", "ray"] = "local"
    """This machine, or a Ray cluster."""
    address: str = ""
    """Of the Ray cluster (HOST:PORT, or auto); none: RAY_ADDRESS, else a Ray of its own on this machine."""
    devices: tuple[str, ...] = ()
    """Local: one process for each (cuda:0,cuda:1 or cpu,cpu); by default all GPUs, else this process."""
    workers: int = 0
    """Ray: how many workers; 0: one a GPU, else as many as the cluster has cores for."""
    gpus: float = -1.0
    """Ray: GPUs of a worker; -1: one where the cluster has any."""
    threads: int = 0
    """CPU threads that a worker computes with; 0: this machine's cores shared out, at most 4 a worker on Ray."""
    decoders: int = 2
    """Threads of a worker that decode pictures."""


@dataclass(frozen=True)
class Elsewhere:
    """A backbone that is opened where it computes: its facts without its weights; made by `describe`."""

    place: str
    """Its name or folder."""
    name: str
    hidden: int
    layers: int
    weights: str

    def fingerprint(self) -> str:
        """As `Backbone.fingerprint`."""
        return self.weights


def describe(name_or_folder: str) -> Elsewhere:
    """The facts of a backbone, which is opened and left again."""
    place = str(Path(name_or_folder).resolve()) if Path(name_or_folder).is_dir() else name_or_folder
    backbone = load_backbone(place, device="cpu")
    return Elsewhere(place, backbone.name, backbone.hidden, backbone.layers, backbone.fingerprint())


@dataclass(frozen=True)
class Job:
    """What a worker needs to know; weights are read where they are needed, not sent."""

    backbone: Elsewhere
    config: EmbedConfig
    threads: int
    decoders: int
    version: str = __version__

    def open(self, device: str | None, where: str) -> Extractor:
        """An extractor, entered, for as long as the process lives.

        Raises:
            StageError: where the backbone cannot be had, or is not the one that is meant.
        """
        if self.version != __version__:
            raise StageError(
                f"{where} has embodied-midtrain {__version__}, this machine {self.version}: "
                "install the same everywhere."
            )
        wanted = self.backbone
        try:
            backbone = load_backbone(wanted.place, device=device)
        except StageError as error:
            raise StageError(
                f"{where} cannot open the backbone {wanted.place}; a folder must be reachable under this path from "
                f"every node. {error}"
            ) from error
        if backbone.fingerprint() != wanted.fingerprint():
            raise StageError(
                f"{where} finds other weights under {wanted.place} than this machine does; give every node the same."
            )
        extractor = Extractor(backbone, self.config, decoders=self.decoders, threads=self.threads)
        return extractor.__enter__()


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_devices(settings: EngineConfig) -> list[str]:
    """The devices of the local engine that get a process each; none where this process does the work.

    Raises:
        StageError: on a device that is not there.
    """
    named = [name for word in settings.devices for name in word.split(",") if name]
    for name in named:
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise StageError(f"{name!r} is no device; write cpu, cuda:0 or several: cuda:0,cuda:1") from error
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise StageError(f"there is no {name}: this machine shows {torch.cuda.device_count()} GPUs")
    if not named and torch.cuda.device_count() > 1:
        return [f"cuda:{n}" for n in range(torch.cuda.device_count())]
    return named


def elsewhere(settings: EngineConfig) -> bool:
    """Whether other processes than this one open the backbone.

    Raises:
        StageError: on settings that do not go together.
    """
    if settings.engine == "local":
        if settings.address or settings.workers or settings.gpus >= 0:
            raise StageError("--address, --workers and --gpus are for --engine ray; here --devices says what is used.")
        return bool(local_devices(settings))
    if settings.devices:
        raise StageError("--devices is for --engine local; on Ray, --workers and --gpus say what is used.")
    return True


def run_windows(
    backbone: Backbone | Elsewhere, config: EmbedConfig, settings: EngineConfig, windows: Iterator[Window]
) -> Done:
    """Embed windows where the settings say; a `Backbone` that is here is used here.

    Raises:
        StageError: a worker cannot do its work; windows that were given back count.
    """
    first = next(windows, None)
    if first is None:
        return
    windows = itertools.chain([first], windows)
    if isinstance(backbone, Backbone):
        with Extractor(backbone, config, decoders=settings.decoders, threads=settings.threads) as extractor:
            yield from in_this_process(Pipeline(extractor), windows)
    elif settings.engine == "ray":
        from embodied_midtrain.features.ray_engine import on_ray

        yield from on_ray(backbone, config, settings, windows)
    else:
        devices = local_devices(settings)
        threads = settings.threads or max(1, cores() // len(devices))
        yield from in_processes(Job(backbone, config, threads, settings.decoders), devices, windows)


def in_this_process(pipeline: Pipeline, windows: Iterator[Window]) -> Done:
    before: Window | None = None
    while True:
        window = next(windows, None)
        done = pipeline(None if window is None else window.items)
        if before is not None:
            assert done is not None
            yield before, done
        if window is None:
            return
        before = window


def open_pipeline(job: Job, device: str) -> Pipeline:
    """For a process of its own."""
    return Pipeline(job.open(device, device))


def in_processes(job: Job, devices: list[str], windows: Iterator[Window]) -> Done:
    """One process a device; each holds two windows, one that computes and one that is decoded."""
    workers: dict[Connection, Worker] = {}
    inside: dict[Connection, list[Window | None]] = {}

    def feed(pipe: Connection) -> None:
        window = next(windows, None)
        inside[pipe].append(window)
        workers[pipe].send(None if window is None else [item.packed() for item in window.items])

    try:
        for device in devices:
            worker = Worker(open_pipeline, job, device)
            workers[worker.pipe], inside[worker.pipe] = worker, [None]
        for pipe in workers:
            feed(pipe)
        while inside:
            for ready in wait(list(inside)):
                assert isinstance(ready, Connection)
                done = workers[ready].receive()
                before = inside[ready].pop(0)
                if inside[ready] == [None]:
                    del inside[ready]
                else:
                    feed(ready)
                if before is not None:
                    yield before, done
    except WorkerDied as error:
        raise StageError(f"{error}: too little memory? What was finished is kept: give the command again.") from error
    except WorkerFailed as error:
        raise StageError(f"a worker failed:\n{error}\nWhat was finished is kept: give the command again.") from error
    finally:
        for worker in workers.values():
            worker.close()
