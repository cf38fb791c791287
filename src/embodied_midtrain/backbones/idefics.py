"""Idefics3 and SmolVLM: a picture is one tile of the vision tower's size, or several and an overview."""

from __future__ import annotations

from typing import Any

from embodied_midtrain.backbones.family import Family


class Idefics(Family):
    """Places are percentages: neither model card nor paper gives these models a form of their own."""

    def limit(self, processor: Any, tokens: int) -> bool:
        images = processor.image_processor
        most = tokens / processor.image_seq_len
        # Tiles come in rows and columns, and an overview with them: at least five of them.
        images.do_image_splitting = most >= 5
        across = max((n for n in range(1, 7) if n * n + 1 <= most), default=1)
        images.size = {"longest_edge": across * images.max_image_size["longest_edge"]}
        return True

    def identity(self, processor: Any) -> str:
        images = processor.image_processor
        return f"{images.do_image_splitting} {images.size} {images.max_image_size}"
