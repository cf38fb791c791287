"""The full state of a run on disk, so that a killed run goes on and ends with the same bits.

A checkpoint is a folder `step-NNNNNNNN` of safetensors and JSON (nothing is pickled): trainable weights, optimiser
state, random generators, the losses so far. The data order is a function of the step (`training.order`), so the
step is its position. A new checkpoint is complete before the older one goes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from embodied_midtrain.artifacts import StageError, atomic_path, read_json, write_json


def save(
    folder: Path, step: int, weights: Mapping[str, nn.Parameter], optimizer: Optimizer, losses: Sequence[float]
) -> Path:
    """Write the state after `step` updates, then remove older checkpoints.

    Raises:
        DiskFull: the older checkpoint is then still there.
    """
    path = folder / f"step-{step:08d}"
    with atomic_path(path) as temporary:
        temporary.mkdir()
        save_file({name: p.detach().contiguous() for name, p in weights.items()}, temporary / "weights.safetensors")
        save_file(_optimizer_state(weights, optimizer), temporary / "optimizer.safetensors")
        generators, numpy_state = _generators()
        save_file(generators, temporary / "generators.safetensors")
        write_json(temporary / "state.json", {"step": step, "losses": list(losses), "numpy": numpy_state})
    for other in _complete(folder):
        if other != path:
            shutil.rmtree(other)
    return path


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint in `folder`."""
    found = _complete(folder)
    return found[-1] if found else None


def restore(path: Path, weights: Mapping[str, nn.Parameter], optimizer: Optimizer) -> tuple[int, list[float]]:
    """Put the saved state back; returns the number of updates done and their losses.

    Raises:
        StageError: where the checkpoint is damaged or belongs to another model.
    """
    try:
        saved = load_file(path / "weights.safetensors")
        moments = load_file(path / "optimizer.safetensors")
        generators = load_file(path / "generators.safetensors")
    except (OSError, SafetensorError) as error:
        raise StageError(f"the checkpoint {path} is damaged ({error}); remove it and give the command again") from error
    state = read_json(path / "state.json")
    if saved.keys() != weights.keys():
        differ = sorted(saved.keys() ^ weights.keys())[:3]
        raise StageError(f"the checkpoint {path} belongs to another model (weights differ: {', '.join(differ)})")
    with torch.no_grad():
        for name, parameter in weights.items():
            parameter.copy_(saved[name])
    for key, value in moments.items():
        name, kind = key.rsplit("|", 1)
        parameter = weights[name]
        device = "cpu" if kind == "step" and not _on_device(optimizer) else parameter.device
        optimizer.state[parameter][kind] = value.to(device)
    _restore_generators(generators, state["numpy"])
    return int(state["step"]), [float(loss) for loss in state["losses"]]


def clear(folder: Path) -> None:
    """Remove all checkpoints, once their result is safe elsewhere."""
    shutil.rmtree(folder, ignore_errors=True)


def _complete(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def _optimizer_state(weights: Mapping[str, nn.Parameter], optimizer: Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}|{kind}": value.detach().contiguous()
        for name, parameter in weights.items()
        for kind, value in optimizer.state[parameter].items()
    }


def _on_device(optimizer: Optimizer) -> bool:
    # Fused optimisers keep their step counters beside the weights, the plain ones on the CPU.
    return any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)


def _generators() -> tuple[dict[str, Tensor], list[Any]]:
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    return tensors, [str(kind), int(position), int(has_gauss), float(gauss)]


def _restore_generators(tensors: Mapping[str, Tensor], numpy_state: Sequence[Any]) -> None:
    torch.set_rng_state(tensors["torch"])
    kind, position, has_gauss, gauss = numpy_state
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, gauss))
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
