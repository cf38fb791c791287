"""Processes that hold simulators or models: a message in, a result out.

Each is started afresh (not forked: OpenGL and torch do not survive a fork) and ends by itself when its owner does,
also after a kill -9, because its pipe then closes.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from embodied_midtrain.artifacts import StageError

Handler = Callable[[Any], Any]


class WorkerDied(RuntimeError):
    """The process ended without a word: a crash in native code, or the system killed it for memory."""


class WorkerFailed(RuntimeError):
    """The process raised; its traceback is the message. It can go on with the next message."""


class Worker:
    """One process that serves what `factory(*arguments)` returns; all of them must be importable by name.

    Args:
        has_children: it may start processes of its own.
    """

    def __init__(self, factory: Callable[..., Handler], *arguments: Any, has_children: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, factory, arguments), daemon=not has_children)
        self._process.start()
        theirs.close()

    def send(self, message: Any) -> None:
        """Raises: WorkerDied."""
        try:
            self.pipe.send(message)
        except OSError as error:
            raise WorkerDied(self._last_words()) from error

    def receive(self) -> Any:
        """The result of the oldest message that has none yet.

        Raises:
            WorkerDied, WorkerFailed: see there.
            StageError: raised there, raised here.
        """
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerDied(self._last_words()) from error
        if kind == "stage error":
            raise value
        if kind == "failed":
            raise WorkerFailed(value)
        return value

    def _last_words(self) -> str:
        self._process.join(timeout=5)
        return f"a worker process ended with exit code {self._process.exitcode}"

    def close(self) -> None:
        """End the process; what it is at is lost."""
        self.pipe.close()
        self._process.join(timeout=1)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(pipe: Connection, factory: Callable[..., Handler], arguments: Sequence[Any]) -> None:
    # Workers share the cores among themselves; each rasterising on all of them only adds switching.
    os.environ.setdefault("LP_NUM_THREADS", "1")
    handler: Handler | None = None
    while True:
        try:
            message = pipe.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        try:
            handler = handler or factory(*arguments)
            answer = ("done", handler(message))
        except StageError as error:
            answer = ("stage error", error)
        except KeyboardInterrupt:
            return
        except Exception:
            answer = ("failed", traceback.format_exc(limit=-5))
        try:
            pipe.send(answer)
        except OSError:
            return


def work_through(
    jobs: Iterable[Any], processes: int, factory: Callable[..., Handler], *arguments: Any
) -> Iterator[tuple[Any, Any]]:
    """(job, result) as they become ready, from `processes` workers, or from this process where that is 1.

    Raises:
        StageError, WorkerDied, WorkerFailed: the first that comes; the workers are ended.
    """
    if processes <= 1:
        handler: Handler | None = None
        for job in jobs:
            handler = handler or factory(*arguments)
            yield job, handler(job)
        return
    waiting = iter(jobs)
    workers: list[Worker] = []
    at: dict[Connection, tuple[Worker, Any]] = {}
    try:
        for job in itertools.islice(waiting, processes):
            workers.append(Worker(factory, *arguments))
            workers[-1].send(job)
            at[workers[-1].pipe] = (workers[-1], job)
        while at:
            for pipe in wait(list(at)):
                assert isinstance(pipe, Connection)
                worker, job = at.pop(pipe)
                result = worker.receive()
                for following in waiting:
                    worker.send(following)
                    at[pipe] = (worker, following)
                    break
                yield job, result
    finally:
        for worker in workers:
            worker.close()
