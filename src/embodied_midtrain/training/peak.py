"""How many operations a second this device's matrix products reach: what model-flops use is measured against."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from embodied_midtrain.artifacts import StageError, read_json, write_json

SIDE = {"cpu": 2048, "cuda": 8192}


def matmul_rate(device: torch.device, dtype: torch.dtype, kept: Path | None = None) -> float:
    """Multiplications and additions a second of a large square matrix product, the best of several.

    It is measured, not read from a data sheet: a share of what the device was seen to do. Uses no random numbers.

    Args:
        kept: a JSON file that remembers rates by device, threads and dtype.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu x{torch.get_num_threads()}"
    key = f"{name} {str(dtype).removeprefix('torch.')}"
    rates: dict[str, float] = {}
    if kept is not None and kept.is_file():
        try:
            rates = read_json(kept)
        except StageError:
            rates = {}
    if key not in rates:
        rates[key] = _measure(device, dtype)
        if kept is not None:
            write_json(kept, rates)
    return float(rates[key])


def _measure(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    side = SIDE.get(device.type, 4096)
    matrix = torch.full((side, side), 1 / side, dtype=dtype, device=device)

    def once() -> float:
        started, worked = time.perf_counter(), time.process_time()
        matrix @ matrix
        if device.type != "cpu":
            torch.cuda.synchronize(device)
            return time.perf_counter() - started
        # Where others use the machine too, the clock goes on while this process does not.
        worked = (time.process_time() - worked) / torch.get_num_threads()
        return min(time.perf_counter() - started, max(worked, 1e-9))

    once()
    best, begun, tries = once(), time.perf_counter(), 1
    while tries < 10 or time.perf_counter() - begun < seconds:
        best, tries = min(best, once()), tries + 1
    return 2.0 * side**3 / best
