"""A small run that draws random numbers as it trains: started by the tests, killed and started again.

Usage: tiny_run.py FOLDER STEPS SECONDS_PER_STEP
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from embodied_midtrain.artifacts import open_stage, write_atomic
from embodied_midtrain.training.loop import Loss, Optimisation, Trainee, close, curve, train
from embodied_midtrain.training.order import draws


def main(folder: Path, steps: int, seconds: float) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(11)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 1))
    data = torch.randn(40, 6)
    goal = data[:, :1] * data[:, 1:2]
    config = Optimisation(steps=steps, batch=8, micro_batch=4, lr=1e-2, save_seconds=0.0, precision="fp32")
    order = draws(40, steps * 8, seed=5).reshape(steps, 2, 4)

    def losses(step):
        time.sleep(seconds)
        for rows in order[step]:
            noise = float(np.random.randn())
            error = (model(data[rows]) - goal[rows] + 0.01 * noise).square().mean() / 2
            yield Loss(error, 4)

    with open_stage(folder, "tiny", config, {}) as run:
        if run.done:
            return
        trainee = Trainee(dict(model.named_parameters()), losses, lambda step: f"rows {order[step].tolist()}")
        values = train(run, trainee, config, "tiny")
        write_atomic(run.file("curve.json"), curve(values))
        save_file(dict(model.state_dict()), run.file("model.safetensors"))
        run.finish()
    close(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
