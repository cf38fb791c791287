"""A small mid-training: started by the tests, alone or by a launcher, killed and started again.

Usage: team_run.py POOL OUT SETTINGS, the settings as JSON
"""

import json
import sys
from pathlib import Path

import torch

from embodied_midtrain.midtraining.midtrain import MidtrainConfig, midtrain
from tests.tiny import backbone


def main(pool: Path, out: Path, settings: dict) -> None:
    torch.set_num_threads(1)
    kind = settings.pop("kind", "compact")
    settings["train"] = tuple(settings.get("train", ("vision", "connector", "language")))
    midtrain(out, MidtrainConfig(**settings), backbone=backbone(kind), pool=pool)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
