"""The learning rate over a run: linear warm-up, then half a cosine."""

from __future__ import annotations

import math


def warmup_steps(steps: int, *, ratio: float = 0.0, fixed: int | None = None) -> int:
    """Steps of warm-up: a fixed number where one is given, else a share of all steps.

    EmbodiedMidtrain gives a ratio for mid-training (table 3) and a number for fine-tuning (table 4).

    Raises:
        ValueError: where the warm-up is negative or longer than the run.
    """
    count = math.ceil(ratio * steps) if fixed is None else fixed
    if not 0 <= count <= steps:
        raise ValueError(f"{count} warm-up steps do not fit into {steps} steps; give fewer, or a ratio in [0, 1]")
    return count


def cosine(step: int, steps: int, warmup: int, floor: float = 0.0) -> float:
    """Share of the peak learning rate that update `step` (from 0) uses.

    Rises linearly to 1 over `warmup` updates (the first one is above 0), then falls to `floor` along half a
    cosine, which it would reach one update after the last.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - warmup)
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
