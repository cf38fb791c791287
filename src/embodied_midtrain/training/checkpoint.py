"""The full state of a run on disk, so that a killed run goes on and ends with the same bits.

A checkpoint is a folder `step-NNNNNNNN` of safetensors and JSON (nothing is pickled): trainable weights, optimiser
state, averages, random generators of every process, the losses so far. The data order is a function of the step
(`training.order`), so the step is its position. Tensors are saved whole, whoever holds which part of them, so a run can
go on with another number of processes. A new checkpoint is complete before the older one goes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from embodied_midtrain.artifacts import StageError, atomic_path, read_json, write_json
from embodied_midtrain.training.averages import Averages
from embodied_midtrain.training.team import ALONE, Team, like, whole


@dataclass(frozen=True)
class Trained:
    """What of a run changes as it trains."""

    weights: Mapping[str, nn.Parameter]
    optimizer: Optimizer
    averages: Averages | None = None


def save(folder: Path, step: int, state: Trained, losses: Sequence[float], team: Team = ALONE) -> Path:
    """Write the state after `step` updates, then remove older checkpoints; every process of the team must call it.

    Raises:
        DiskFull: the older checkpoint is then still there.
    """
    path = folder / f"step-{step:08d}"
    generators, numpy_states = _generators(team)
    weights = _whole({name: p.detach() for name, p in state.weights.items()}, team)
    moments = _whole(_moments(state), team)
    averages = _whole(state.averages.values, team) if state.averages is not None else {}
    if team.first:
        with atomic_path(path) as temporary:
            temporary.mkdir()
            save_file(weights, temporary / "weights.safetensors")
            save_file(moments, temporary / "optimizer.safetensors")
            if averages:
                save_file(averages, temporary / "averages.safetensors")
            save_file(generators, temporary / "generators.safetensors")
            write_json(temporary / "state.json", {"step": step, "losses": list(losses), "numpy": numpy_states})
        for other in _complete(folder):
            if other != path:
                shutil.rmtree(other)
    return path


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint in `folder`."""
    found = _complete(folder)
    return found[-1] if found else None


def restore(path: Path, state: Trained, team: Team = ALONE) -> tuple[int, list[float]]:
    """Put the saved state back; returns the number of updates done and their losses.

    A process that the saved team did not have keeps its own random generators.

    Raises:
        StageError: where the checkpoint is damaged or belongs to another model.
    """
    try:
        saved = load_file(path / "weights.safetensors")
        moments = load_file(path / "optimizer.safetensors")
        generators = load_file(path / "generators.safetensors")
        averages = load_file(path / "averages.safetensors") if state.averages is not None else {}
    except (OSError, SafetensorError) as error:
        raise StageError(f"the checkpoint {path} is damaged ({error}); remove it and give the command again") from error
    facts = read_json(path / "state.json")
    if saved.keys() != state.weights.keys():
        differ = sorted(saved.keys() ^ state.weights.keys())[:3]
        raise StageError(f"the checkpoint {path} belongs to another model (weights differ: {', '.join(differ)})")
    with torch.no_grad():
        for name, parameter in state.weights.items():
            parameter.copy_(like(saved[name], parameter))
    for key, value in moments.items():
        name, kind = key.rsplit("|", 1)
        parameter = state.weights[name]
        if value.shape == parameter.shape:
            value = like(value, parameter)
        elif _on_device(state.optimizer):
            value = value.to(parameter.device)
        state.optimizer.state[parameter][kind] = value
    if state.averages is not None:
        for name, held in state.averages.values.items():
            held.copy_(like(averages[name], held))
    if team.rank < len(facts["numpy"]):
        _restore_generators(generators, facts["numpy"][team.rank], team.rank)
    return int(facts["step"]), [float(loss) for loss in facts["losses"]]


def clear(folder: Path) -> None:
    """Remove all checkpoints, once their result is safe elsewhere."""
    shutil.rmtree(folder, ignore_errors=True)


def _complete(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def _whole(tensors: Mapping[str, Tensor], team: Team) -> dict[str, Tensor]:
    """Put together one by one; only the first process keeps them, off the GPU where they were split."""
    kept: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = whole(tensor)
        if team.first:
            kept[name] = value.contiguous() if value is tensor else value.cpu().contiguous()
    return kept


def _moments(state: Trained) -> dict[str, Tensor]:
    return {
        f"{name}|{kind}": value.detach()
        for name, parameter in state.weights.items()
        for kind, value in state.optimizer.state[parameter].items()
    }


def _on_device(optimizer: Optimizer) -> bool:
    # Fused optimisers keep their step counters beside the weights, the plain ones on the CPU.
    return any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)


def _generators(team: Team) -> tuple[dict[str, Tensor], list[list[Any]]]:
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    own = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    if torch.cuda.is_available():
        own["cuda"] = torch.cuda.get_rng_state()
    said = team.all_say((own, [str(kind), int(position), int(has_gauss), float(gauss)]))
    tensors = {f"{rank}|{name}": value for rank, (states, _) in enumerate(said) for name, value in states.items()}
    return tensors, [numpy_state for _, numpy_state in said]


def _restore_generators(tensors: Mapping[str, Tensor], numpy_state: Sequence[Any], rank: int) -> None:
    torch.set_rng_state(tensors[f"{rank}|torch"])
    kind, position, has_gauss, gauss = numpy_state
    np.random.set_state((kind, tensors[f"{rank}|numpy"].numpy().astype(np.uint32), position, has_gauss, gauss))
    if f"{rank}|cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[f"{rank}|cuda"])
