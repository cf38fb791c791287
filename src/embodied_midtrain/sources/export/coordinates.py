"""Points and boxes as text, in the convention of who is going to read them.

A box is written [x0, y0, x1, y1], a point (x, y): what `sources.geometry.lift` reads back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from embodied_midtrain.samples import BadSample, Region, Turn
from embodied_midtrain.sources.geometry import Convention

Coordinates = Literal["unit", "thousand", "pixels", "qwen2.5"]
"""In [0, 1] (LLaVA, RoboPoint); whole numbers from 0 to 1000 (Qwen3-VL, InternVL); pixels of the image file; pixels of
the image as Qwen2.5-VL's processor scales it."""

READ_AS: dict[Coordinates, Convention] = {"unit": "unit", "thousand": "thousand"}
"""Those that can be read back without the image."""
Size = tuple[int, int]
"""Width and height."""


def write_turn(turn: Turn, coordinates: Coordinates, sizes: Sequence[Size]) -> str:
    """The turn's text with its geometry in words.

    Args:
        sizes: of the sample's images; pixels need one.

    Raises:
        BadSample: "ambiguous geometry" where pixels are wanted and there is no image, or several of different sizes.
    """
    if not turn.regions:
        return turn.text
    size = (1, 1)
    if coordinates in ("pixels", "qwen2.5"):
        if len(set(sizes)) != 1:
            raise BadSample("ambiguous geometry", f"pixels of which image? It has {len(sizes)}, of sizes {sizes}")
        size = sizes[0] if coordinates == "pixels" else scaled(sizes[0])
    return turn.written(lambda region: _written(region, coordinates, size))


def _written(region: Region, coordinates: Coordinates, size: Size) -> str:
    if coordinates == "unit":
        numbers = [f"{value:.3f}" for value in region.values]
    elif coordinates == "thousand":
        numbers = [str(round(1000 * value)) for value in region.values]
    else:
        numbers = [str(round(value * size[n % 2])) for n, value in enumerate(region.values)]
    text = ", ".join(numbers)
    return f"[{text}]" if region.kind == "box" else f"({text})"


def scaled(size: Size) -> Size:
    """Width and height after Qwen2.5-VL's processor: multiples of 28, at least 56 x 56 pixels, at most 1,280 patches.

    (As its fine-tuning code converts boxes, qwen-vl-finetune/tools/process_bbox.ipynb.)
    """
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    try:
        height, width = smart_resize(size[1], size[0])
    except ValueError as error:
        raise BadSample("image too narrow", str(error)) from error
    return width, height
