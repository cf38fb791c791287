"""InternVL 3 and 3.5 in the Hugging Face format: 448-pixel tiles of 256 tokens."""

from __future__ import annotations

from typing import Any

from embodied_midtrain.backbones.family import Family
from embodied_midtrain.backbones.regions import thousandths
from embodied_midtrain.samples import Region


class InternVL(Family):
    """One tile a picture unless more tokens are allowed (VLM4VLA: 224 pixels first, then one of 448).

    Places are thousandths, boxes as <box>[[x0, y0, x1, y1]]</box> (InternVL's documentation, "Chat Data Format",
    grounding / detection data); it gives points no form of their own: they are written like boxes.
    """

    def limit(self, processor: Any, tokens: int) -> bool:
        images = processor.image_processor
        tiles = tokens // processor.image_seq_length
        # An overview comes on top of two tiles and more.
        images.crop_to_patches = tiles >= 3
        images.min_patches, images.max_patches = 1, max(1, tiles - 1)
        return True

    def place(self, processor: Any, region: Region, size: tuple[int, int] | None) -> str:
        return f"<box>[{thousandths(region)}]</box>"

    def asked(self, processor: Any) -> dict[str, Any]:
        images = processor.image_processor
        # The processor's own default is to cut, whatever its image processor says.
        return {"images_kwargs": {"crop_to_patches": images.crop_to_patches, "max_patches": images.max_patches}}

    def identity(self, processor: Any) -> str:
        images = processor.image_processor
        return f"{images.size} {images.crop_to_patches} {images.max_patches}"
