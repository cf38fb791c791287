"""Doing the stages of a study: each when what it needs is there, here, in processes or on Ray.

A stage that fails takes down those that need it, and nothing else.
"""

from __future__ import annotations

import gc
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from embodied_midtrain.allocation import release_free_blocks
from embodied_midtrain.artifacts import DiskFull, StageError, read_json, write_atomic
from embodied_midtrain.recipes.meter import METER, Meter
from embodied_midtrain.studies.calling import House, call, is_done
from embodied_midtrain.studies.graph import Stage

TRACEBACK = "traceback.txt"


@dataclass(frozen=True)
class State:
    """How a stage stands: "done", "failed" (with why), "needs" (one that failed: why names it) or "not run"."""

    state: str
    why: str = ""


NOT_RUN = State("not run")


class Hands(Protocol):
    """Who does stages. It is given one while it is `free`, and says when one is done."""

    @property
    def free(self) -> bool: ...
    @property
    def busy(self) -> bool: ...

    def start(self, house: House, stage: Stage) -> None: ...

    def wait(self) -> tuple[Stage, State]:
        """The next one that has come to an end."""
        ...


def do(house: House, stage: Stage) -> State:
    """Do one stage in this process; what goes wrong is its state.

    Raises:
        DiskFull: that nothing else could go on from.
    """
    try:
        with Meter(house.times(stage)).stage(stage.key):
            call(house, stage)
    except DiskFull:
        raise
    except (StageError, ValueError, MemoryError) as error:
        return State("failed", first_line(error))
    except Exception as error:
        # No fault that was foreseen: others go on, and whoever mends this one needs to see where.
        write_atomic(house.times(stage) / TRACEBACK, traceback.format_exc())
        return State("failed", f"{first_line(error)} (see {house.times(stage) / TRACEBACK})")
    finally:
        gc.collect()
        release_free_blocks()
    return State("done")


def first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class Here:
    """This process: one stage at a time."""

    def __init__(self) -> None:
        self._ended: deque[tuple[Stage, State]] = deque()

    @property
    def free(self) -> bool:
        return not self._ended

    @property
    def busy(self) -> bool:
        return bool(self._ended)

    def start(self, house: House, stage: Stage) -> None:
        self._ended.append((stage, do(house, stage)))

    def wait(self) -> tuple[Stage, State]:
        return self._ended.popleft()


def states(house: House, stages: Sequence[Stage]) -> dict[str, State]:
    """How stages stand before anything is done; those of an earlier call that failed say why."""
    found = {}
    for stage in stages:
        if is_done(house, stage):
            found[stage.key] = State("done")
        else:
            times = house.times(stage) / METER
            row = read_json(times).get(stage.key, {}) if times.is_file() else {}
            failed = row.get("state") == "failed"
            found[stage.key] = State("failed", row["note"]) if failed else NOT_RUN
    return found


def work(
    house: House, stages: Sequence[Stage], hands: Hands, told: Callable[[Stage, State | None, int], None]
) -> dict[str, State]:
    """Do what is not done yet, in this order as far as what each needs is there.

    Args:
        told: hears of each stage that is begun (state None) or has ended, and how many are behind it.

    Raises:
        DiskFull: what was finished before is kept.
    """
    found = {stage.key: State("done") for stage in stages if is_done(house, stage)}
    waiting = [stage for stage in stages if stage.key not in found]
    while waiting or hands.busy:
        later = []
        for stage in waiting:
            needed = [(one, found.get(one.key, NOT_RUN)) for one in stage.before()]
            broken = [(one, state) for one, state in needed if state.state in ("failed", "needs")]
            if broken:
                # The first that failed, not the one between.
                one, state = broken[0]
                found[stage.key] = State("needs", state.why if state.state == "needs" else one.key)
                told(stage, found[stage.key], len(found))
            elif hands.free and all(state.state == "done" for _, state in needed):
                told(stage, None, len(found))
                hands.start(house, stage)
            else:
                later.append(stage)
        waiting = later
        if hands.busy:
            stage, state = hands.wait()
            found[stage.key] = state
            told(stage, state, len(found))
    return found
