"""Image-text samples beside robot frames: joint training, so that learning actions does not unlearn the rest.

"Rethinking VLM Representation for VLA Initialization" (arXiv 2605.25802) trains on robot data with loss 1.0 for actions
and 0.1 for VQA. How many samples a step sees and what they weigh are two settings here: loss = actions + weight * VQA,
each a mean of its own, the VQA's over all learnt tokens of the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embodied_midtrain.artifacts import Artifact, Skips, StageRun
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.midtraining.mixture import Budget, Key, prepare
from embodied_midtrain.midtraining.rows import MicroBatch, Rows
from embodied_midtrain.proximity.select import read_selection
from embodied_midtrain.samples import Sample
from embodied_midtrain.sources.opening import keys_of, open_pool, read_samples
from embodied_midtrain.training.loop import Loss
from embodied_midtrain.training.team import ALONE


@dataclass(frozen=True, kw_only=True)
class JointConfig:
    """Image-text samples beside the robot's frames, where a pool of them is given."""

    vqa_ratio: float = 0.25
    """Image-text samples in a batch for each robot frame in it; batch times this must be a whole number."""
    vqa_weight: float = 0.1
    """Weight of their loss beside the actions'."""

    def samples(self, batch: int) -> int:
        """Image-text samples of a step with so many frames.

        Raises:
            ValueError: where that is no whole number, or a setting cannot be meant.
        """
        wanted = self.vqa_ratio * batch
        if not (self.vqa_weight > 0 and round(wanted) >= 1 and abs(wanted - round(wanted)) < 1e-6):
            raise ValueError(
                f"vqa_ratio {self.vqa_ratio} of a batch of {batch} frames is {wanted:g} samples, and vqa_weight is "
                f"{self.vqa_weight}: wanted a whole number from 1 on, and a weight above 0"
            )
        return round(wanted)


@dataclass(frozen=True)
class ImageText:
    """Where image-text samples are: a pool, of it what an 'emt select' artifact chose, and where its paths begin."""

    pool: Path | str
    selection: Artifact | None = None
    images: Path | None = None

    def inputs(self) -> dict[str, Artifact | str]:
        """What a stage that trains on them was made from."""
        pool = {"vqa_pool": open_pool(self.pool, images=self.images, skips=Skips()).fingerprint()}
        return {**pool, **({"vqa_selection": self.selection} if self.selection is not None else {})}

    def keys(self) -> Sequence[Key]:
        if self.selection is not None:
            return read_selection(self.selection)
        return keys_of(open_pool(self.pool, images=self.images, skips=Skips()))

    def fetch(self, keys: Sequence[Key]) -> Iterator[Sample]:
        return read_samples(self.pool, keys, images=self.images)


class Joint:
    """The image-text part of every step.

    Args:
        keep_vision: the vision part does not learn: compute its output once a sample.

    Raises:
        StageError: where no sample is usable.
    """

    def __init__(
        self,
        run: StageRun,
        backbone: Backbone,
        data: ImageText,
        config: JointConfig,
        *,
        steps: int,
        batch: int,
        micro_batch: int,
        seed: int,
        keep_vision: bool,
    ) -> None:
        self._backbone = backbone
        self._weight = config.vqa_weight
        self.batch = config.samples(batch)
        self._frames = batch
        budget = Budget(steps=steps, batch=self.batch, seed=seed, weights={}, repeats=True)
        self.mixture = prepare(run, data.keys(), data.fetch, backbone, budget, keep_vision=keep_vision)
        self._rows = Rows(self.mixture, backbone, data.fetch, ALONE, micro_batch=micro_batch, window=None)

    def step(self, step: int) -> list[MicroBatch]:
        """The step's samples, ready for `losses`."""
        return self._rows.step(step)

    def losses(self, parts: Sequence[MicroBatch]) -> Iterator[Loss]:
        """The step's shares, weighted."""
        for part in parts:
            share = self._backbone.loss(part.batch) * (part.share * self._weight)
            yield Loss(share, 0, what=part.names, part="image_text")

    def describe(self, step: int) -> str:
        return self._rows.describe(step)

    def counts(self) -> dict[str, Any]:
        """What was seen: samples, and how many there were for each robot frame."""
        seen = self.mixture.steps.size
        ratio = seen / (len(self.mixture.steps) * self._frames)
        return {"vqa_seen": seen, "vqa_ratio": ratio, "vqa_composition": self.mixture.composition()}
