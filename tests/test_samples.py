import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from embodied_midtrain import samples
from embodied_midtrain.samples import (
    BadSample,
    Picture,
    Region,
    Sample,
    Turn,
    decode_image,
    turns_from_json,
    turns_to_json,
)


def encoded(mode: str = "RGB", kind: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 1 if mode in ("1", "I;16") else None).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "PNG"), ("RGBA", "PNG"), ("P", "GIF"), ("L", "JPEG"), ("CMYK", "JPEG"), ("LA", "PNG"), ("I;16", "PNG")],
)
def test_every_usual_mode_becomes_rgb(mode: str, kind: str) -> None:
    image = decode_image(encoded(mode, kind))
    assert (image.mode, image.size) == ("RGB", (40, 30))


def test_sixteen_bits_keep_their_greys() -> None:
    values = np.array([[0, 255, 256, 0x7FFF, 0xFFFF]], np.uint16)
    for kind in ("PNG", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, kind)
        assert np.asarray(decode_image(buffer.getvalue())).tolist() == [[[v >> 8] * 3 for v in values[0].tolist()]]
    for dtype, numbers in ((np.int32, [[0, 1 << 16]]), (np.int32, [[-1, 5]]), (np.float32, [[0.0, 1.0]])):
        buffer = io.BytesIO()
        Image.fromarray(np.array(numbers, dtype)).save(buffer, "TIFF")
        with pytest.raises(BadSample, match="unknown range"):
            decode_image(buffer.getvalue())


def test_an_animation_is_its_first_frame_and_cmyk_its_colours() -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        buffer = io.BytesIO()
        options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], **options)
        assert decode_image(buffer.getvalue()).getpixel((0, 0)) == (255, 0, 0)
    buffer = io.BytesIO()
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(buffer, "JPEG", quality=100)
    red, green, blue = decode_image(buffer.getvalue()).getpixel((4, 4))  # type: ignore[misc]
    assert red > 250 and green < 5 and blue < 5


def test_transparent_is_white() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(buffer, "PNG")
    assert decode_image(buffer.getvalue()).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_truncated_images_are_named(kind: str) -> None:
    noisy = Image.effect_noise((200, 200), 90).convert("RGB")
    buffer = io.BytesIO()
    noisy.save(buffer, kind)
    for share in (0.01, 0.3, 0.9):
        with pytest.raises(BadSample, match="broken image"):
            decode_image(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])


@given(st.binary(max_size=200))
def test_any_bytes_give_an_image_or_a_reason(data: bytes) -> None:
    try:
        assert decode_image(data).mode == "RGB"
    except BadSample as error:
        assert error.reason in ("empty image", "broken image", "image too large", "unknown range")


def test_empty_missing_and_huge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadSample, match="empty image"):
        decode_image(b"")
    with pytest.raises(BadSample, match="missing image"):
        Picture(path=tmp_path / "none.png").decode()
    with pytest.raises(BadSample, match="missing image"):
        Picture().read()
    monkeypatch.setattr(samples, "MAX_PIXELS", 100)
    with pytest.raises(BadSample, match="too large"):
        decode_image(encoded())


def test_geometry_is_checked() -> None:
    Region("point", (0.0, 1.0))
    for kind, values in (("point", (0.1,)), ("box", (0.1, 0.2)), ("point", (1.2, 0.0)), ("point", (float("nan"), 0.0))):
        with pytest.raises(BadSample, match="bad geometry"):
            Region(kind, values)  # type: ignore[arg-type]
    with pytest.raises(BadSample, match="1 <region> marks for 0 regions"):
        Turn("assistant", "at <region>")


def test_turns_round_trip() -> None:
    turns = (
        Turn("user", "Where is “the cup”?\n"),
        Turn("assistant", "<region>, <region>", (Region("point", (0.25, 0.5)), Region("box", (0, 0, 1, 1)))),
    )
    assert turns_from_json(turns_to_json(turns)) == turns
    for broken in ("{", "[1]", '[{"role": "user"}]', '[{"role":"user","text":"<region>"}]'):
        with pytest.raises(BadSample):
            turns_from_json(broken)


def test_a_sample_needs_an_answer() -> None:
    with pytest.raises(BadSample, match="empty text"):
        Sample("s", "1", (), (Turn("user", "hello"), Turn("assistant", "  "))).check()
    with pytest.raises(BadSample, match="missing id"):
        Sample("s", "", (), (Turn("assistant", "x"),)).check()
