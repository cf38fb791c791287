"""What a policy does to a camera frame and an instruction before the backbone: saved with it, used everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.episodes import ACTION_PROMPT, target_prompt


@dataclass(frozen=True)
class Preprocessor:
    """One preprocessor for the training cache, training and rollouts (design rule 4).

    Attributes:
        image: side in pixels that frames are brought to first; the backbone then does what it does to any image
            (VLM4VLA: 224, whatever the backbone).
        template: the user text, with {instruction} in it.
    """

    image: int = 224
    template: str = ACTION_PROMPT

    def resize(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[n, h, w, 3] -> [n, image, image, 3]; unchanged where that is their size."""
        if frames.shape[1:3] == (self.image, self.image):
            return frames
        side = (self.image, self.image)
        return np.stack([np.asarray(Image.fromarray(f).resize(side, Image.Resampling.BICUBIC)) for f in frames])

    def render(self, backbone: Backbone, frames: NDArray[np.uint8], instructions: list[str]) -> list[Rendered]:
        """Frames of any size and their instructions as rows to collate."""
        return [
            backbone.prompt(frame, target_prompt(instruction, self.template))
            for frame, instruction in zip(self.resize(frames), instructions, strict=True)
        ]


def random_crop(frame: NDArray[np.uint8], share: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random window of `share` of the frame's side, brought back to the frame's size (augmentation)."""
    height, width = frame.shape[:2]
    h, w = max(1, round(height * share)), max(1, round(width * share))
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    window = Image.fromarray(frame[top : top + h, left : left + w])
    return np.asarray(window.resize((width, height), Image.Resampling.BICUBIC))
