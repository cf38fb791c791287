"""Stages in several processes of this machine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait

import torch

from embodied_midtrain.allocation import keep_large_blocks
from embodied_midtrain.features.engines import cores
from embodied_midtrain.studies.calling import House
from embodied_midtrain.studies.engine import State, do
from embodied_midtrain.studies.graph import Stage
from embodied_midtrain.workers import Worker, WorkerDied, WorkerFailed


def doer(threads: int, owner: int) -> Callable[[tuple[House, Stage]], State]:
    """For a process of its own, which ends with its owner."""

    def watch() -> None:
        while os.getppid() == owner:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    keep_large_blocks()
    torch.set_num_threads(threads)
    return lambda job: do(*job)


class Processes:
    """Several processes, each with its share of the cores."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._idle: list[Worker] = []
        self._at: dict[Connection, tuple[Worker, Stage]] = {}

    @property
    def free(self) -> bool:
        return len(self._at) < self._count

    @property
    def busy(self) -> bool:
        return bool(self._at)

    def start(self, house: House, stage: Stage) -> None:
        threads = max(1, cores() // self._count)
        worker = self._idle.pop() if self._idle else Worker(doer, threads, os.getpid(), has_children=True)
        worker.send((house, stage))
        self._at[worker.pipe] = (worker, stage)

    def wait(self) -> tuple[Stage, State]:
        pipe = wait(list(self._at))[0]
        assert isinstance(pipe, Connection)
        worker, stage = self._at.pop(pipe)
        try:
            state: State = worker.receive()
        except (WorkerDied, WorkerFailed) as error:
            worker.close()
            return stage, State("failed", f"{str(error).splitlines()[-1]}: too little memory?")
        self._idle.append(worker)
        return stage, state

    def close(self) -> None:
        for worker in (*self._idle, *(worker for worker, _ in self._at.values())):
            worker.close()
