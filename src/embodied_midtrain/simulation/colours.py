"""What colours are called and what they are: one word means one colour, in the pool as in the benchmarks."""

from __future__ import annotations

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.08, 0.08),
    "green": (0.1, 0.6, 0.15),
    "blue": (0.1, 0.25, 0.85),
    "yellow": (0.95, 0.85, 0.1),
    "orange": (0.98, 0.5, 0.05),
    "purple": (0.5, 0.15, 0.65),
    "white": (0.95, 0.95, 0.95),
    "black": (0.08, 0.08, 0.08),
}
