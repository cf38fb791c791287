"""Samples that the tests of backbones share."""

import io

import numpy as np
from PIL import Image

from embodied_midtrain.samples import Picture, Region, Sample, Turn, caption, question


def picture(seed: int = 0, size: tuple[int, int] = (40, 24)) -> Picture:
    values = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return Picture(buffer.getvalue())


def samples() -> list[Sample]:
    spot = (Region("point", (0.37, 0.62)),)
    talk = (Turn("user", "What?"), Turn("assistant", "A cat."), Turn("user", "Sure?"), Turn("assistant", "Yes, I am."))
    return [
        caption("s", "1", picture(1), "A red car."),
        question("s", "2", picture(2), "Where is it?", "At <region>, I think.", answered_regions=spot),
        Sample("s", "3", (picture(3),), talk),
        Sample("s", "4", (), (Turn("user", "No picture here."), Turn("assistant", "None."))),
    ]
