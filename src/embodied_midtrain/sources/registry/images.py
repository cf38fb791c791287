"""Images of the default pool: one size limit and one encoding each for photos and for drawings."""

from __future__ import annotations

import io

from PIL import Image

from embodied_midtrain.samples import Picture, decode_image

LONGEST_SIDE = 336
"""Pixels; what common vision encoders take at the most without tiling."""


def picture(image: Image.Image, *, lossy: bool = True) -> Picture:
    """Shrink to `LONGEST_SIDE` (never enlarge) and encode: JPEG for photos and renders, PNG where `lossy` is off,
    for what has hard edges and flat colours (text, charts). Same pixels, same bytes."""
    image = image.convert("RGB")
    if max(image.size) > LONGEST_SIDE:
        scale = LONGEST_SIDE / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    if lossy:
        image.save(buffer, "JPEG", quality=90)
    else:
        image.save(buffer, "PNG")
    return Picture(data=buffer.getvalue())


def reencode(data: bytes, *, lossy: bool = True) -> Picture:
    """The `picture` of an encoded image from a package.

    Raises:
        BadSample: where it cannot be decoded.
    """
    return picture(decode_image(data), lossy=lossy)
