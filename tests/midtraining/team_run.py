"""A small mid-training: started by the tests, alone or by a launcher, killed and started again.

Usage: team_run.py POOL OUT SETTINGS, the settings as JSON
"""

import json
import math
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from embodied_midtrain.midtraining.midtrain import MidtrainConfig, midtrain
from embodied_midtrain.midtraining.rows import Rows
from embodied_midtrain.training import checkpoint
from embodied_midtrain.training.team import join_team
from tests.tiny import backbone

save = checkpoint.save


def die_after(step: int) -> None:
    """Every process kills itself, as `kill -9` would, once the state after this step is saved."""

    def dying(folder, at, *rest):
        path = save(folder, at, *rest)
        if at == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return path

    checkpoint.save = dying


def spoil(rank: int, at: int) -> None:
    """What one process learns at one step has no finite loss."""
    whole = Rows.step

    def spoilt(self, step):
        first, *others = whole(self, step)
        if step == at and self._team.rank == rank:
            first = replace(first, share=math.nan)
        return [first, *others]

    Rows.step = spoilt


def main(pool: Path, out: Path, settings: dict) -> None:
    torch.set_num_threads(1)
    if (step := settings.pop("die_after", None)) is not None:
        die_after(step)
    if (where := settings.pop("spoil", None)) is not None:
        spoil(*where)
    kind = settings.pop("kind", "compact")
    settings["train"] = tuple(settings.get("train", ("vision", "connector", "language")))
    midtrain(out, MidtrainConfig(**settings), backbone=backbone(kind), pool=pool)
    # As the command does: on a busy machine, exit with open connections may abort.
    join_team("cpu").leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
