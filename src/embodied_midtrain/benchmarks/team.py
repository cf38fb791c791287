"""Simulators of one group of episodes, spread over processes and stepped together."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.benchmarks.protocol import Simulation, open_benchmark
from embodied_midtrain.workers import Worker, WorkerDied, WorkerFailed


@dataclass(frozen=True, slots=True)
class Start:
    """Begin episodes: `states` maps a seat to an initial state."""

    task: str
    size: int
    states: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Go:
    """Take steps: `actions` maps a seat to actions [steps, width], or to a number of steps for the expert to take."""

    actions: Mapping[int, NDArray[np.float32] | int]


@dataclass(frozen=True, slots=True)
class Seen:
    """One seat after a message.

    Attributes:
        frame: what the camera sees.
        steps: steps that were taken, up to the one that solved the task.
        solved: whether it is.
        start: after `Start`, what identifies the initial state.
        error: the simulator's last words, where it raised.
    """

    frame: NDArray[np.uint8]
    steps: int = 0
    solved: bool = False
    start: str = ""
    error: str = ""


class Crash(RuntimeError):
    """Simulators have failed: `words` by seat; `others` is what the rest saw, for whoever goes on without them."""

    def __init__(self, words: dict[int, str], others: dict[int, Seen]) -> None:
        super().__init__("; ".join(sorted(set(words.values()))))
        self.words = words
        self.others = others


class Seats:
    """The simulators of one process, one a seat, kept from group to group while task and size stay."""

    def __init__(self, benchmark: str) -> None:
        self._benchmark = open_benchmark(benchmark)
        self._for: tuple[str, int] | None = None
        self._simulations: dict[int, Simulation] = {}

    def __call__(self, message: Start | Go) -> dict[int, Seen]:
        seats = message.states if isinstance(message, Start) else message.actions
        return {seat: self._guarded(message, seat) for seat in seats}

    def _guarded(self, message: Start | Go, seat: int) -> Seen:
        try:
            if isinstance(message, Start):
                return self._start(message, seat, message.states[seat])
            return self._go(self._simulations[seat], message.actions[seat])
        except StageError:
            raise
        except Exception as error:  # Whatever a simulator raises is one episode's misfortune.
            if (broken := self._simulations.pop(seat, None)) is not None:
                with contextlib.suppress(Exception):
                    broken.close()
            return Seen(np.zeros((0, 0, 3), np.uint8), error=f"{type(error).__name__}: {error}")

    def _start(self, message: Start, seat: int, state: int) -> Seen:
        if self._for != (message.task, message.size):
            for simulation in self._simulations.values():
                simulation.close()
            self._simulations, self._for = {}, (message.task, message.size)
        if seat not in self._simulations:
            self._simulations[seat] = self._benchmark.make(message.task, message.size)
        simulation = self._simulations[seat]
        simulation.reset(state)
        return Seen(simulation.frame(), start=simulation.start().hex())

    @staticmethod
    def _go(simulation: Simulation, actions: NDArray[np.float32] | int) -> Seen:
        count = actions if isinstance(actions, int) else len(actions)
        for step in range(count):
            solved = simulation.step(simulation.expert() if isinstance(actions, int) else actions[step])
            if solved:
                return Seen(simulation.frame(), step + 1, solved=True)
        return Seen(simulation.frame(), count)


class Team:
    """Processes that share the seats: seat s sits in process s modulo their number."""

    def __init__(self, benchmark: str, processes: int) -> None:
        self._benchmark = benchmark
        self._workers: list[Worker | None] = [None] * processes

    def start(self, task: str, size: int, states: Mapping[int, int]) -> dict[int, Seen]:
        """Raises: Crash."""
        shares = self._shares(states)
        return self._ask({n: Start(task, size, {s: states[s] for s in seats}) for n, seats in shares.items()})

    def go(self, actions: Mapping[int, NDArray[np.float32] | int]) -> dict[int, Seen]:
        """Raises: Crash."""
        shares = self._shares(actions)
        return self._ask({n: Go({s: actions[s] for s in seats}) for n, seats in shares.items()})

    def _shares(self, seats: Mapping[int, object]) -> dict[int, list[int]]:
        shares: dict[int, list[int]] = {}
        for seat in seats:
            shares.setdefault(seat % len(self._workers), []).append(seat)
        return shares

    def _ask(self, messages: Mapping[int, Start | Go]) -> dict[int, Seen]:
        seen: dict[int, Seen] = {}
        words: dict[int, str] = {}
        # First all get their message, so that they work at the same time.
        for step in (self._send, self._receive):
            for n, message in messages.items():
                seats = message.states if isinstance(message, Start) else message.actions
                if any(seat in words for seat in seats):
                    continue
                try:
                    seen.update(step(n, message))
                except (WorkerDied, WorkerFailed) as error:
                    self._end(n)
                    words.update(dict.fromkeys(seats, str(error)))
        words.update({seat: what.error for seat, what in seen.items() if what.error})
        if words:
            raise Crash(words, {seat: what for seat, what in seen.items() if seat not in words})
        return seen

    def _send(self, n: int, message: Start | Go) -> dict[int, Seen]:
        worker = self._workers[n] or Worker(Seats, self._benchmark)
        self._workers[n] = worker
        worker.send(message)
        return {}

    def _receive(self, n: int, message: Start | Go) -> dict[int, Seen]:
        worker = self._workers[n]
        assert worker is not None
        seen: dict[int, Seen] = worker.receive()
        return seen

    def _end(self, n: int) -> None:
        worker, self._workers[n] = self._workers[n], None
        if worker is not None:
            worker.close()

    def close(self) -> None:
        for n in range(len(self._workers)):
            self._end(n)

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
