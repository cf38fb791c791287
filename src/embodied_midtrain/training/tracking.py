"""Trackers: a run's figures also into TensorBoard, Weights & Biases or Trackio, by accelerate's trackers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from embodied_midtrain.extras import require

TrackerName = Literal["tensorboard", "wandb", "trackio"]


class Tracker(Protocol):
    """What the training loop tells its figures to."""

    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def finish(self) -> None: ...


class AccelerateTracker:
    """One of accelerate's trackers."""

    def __init__(self, name: TrackerName, run: str, folder: Path, settings: Mapping[str, Any]) -> None:
        """
        Args:
            run: the run's name.
            folder: where TensorBoard writes; the others have places of their own.
            settings: the stage's config, as plain values.

        Raises:
            StageError: where the tracker's package is not installed.
        """
        require(name, name)
        tracking = require("accelerate.tracking", "train")
        kind = tracking.LOGGER_TYPE_TO_CLASS[name]
        self._tracker = kind(run, logging_dir=str(folder)) if kind.requires_logging_directory else kind(run)
        if hasattr(self._tracker, "start"):
            self._tracker.start()
        # TensorBoard takes single values only.
        self._tracker.store_init_configuration(
            {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in settings.items()}
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._tracker.log(dict(values), step=step)

    def finish(self) -> None:
        self._tracker.finish()
