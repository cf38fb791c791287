"""How fast a training is while it runs."""

from __future__ import annotations

from collections import deque


class Speed:
    """How fast the last steps were: units a second, share of the peak, share of the time spent waiting for data."""

    def __init__(self, unit: str, peak: float | None) -> None:
        self._unit = unit
        self._peak = peak
        self._last: deque[tuple[float, float, float, float]] = deque(maxlen=20)

    def of(self, size: float, operations: float, seconds: float, idle: float) -> dict[str, float]:
        """Take in a step that took `seconds`, of which it waited `idle`; its figures for the journal."""
        seconds = max(1e-9, seconds)
        self._last.append((size, operations, seconds, idle))
        figures = {
            "seconds": seconds,
            f"{self._unit}_per_second": size / seconds,
            "idle": idle / seconds,
        }
        if self._peak and operations:
            figures["flops_use"] = operations / seconds / self._peak
        return figures

    def __str__(self) -> str:
        size, operations, seconds, idle = (sum(column) for column in zip(*self._last, strict=True))
        text = f"{size / seconds:,.0f} {self._unit}/s"
        if self._peak and operations:
            text += f"  {operations / seconds / self._peak:.0%} of peak"
        return f"{text}  idle {idle / seconds:.1%}"
