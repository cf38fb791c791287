"""The JSON of Qwen's own fine-tuning code (QwenLM/Qwen3-VL, qwen-vl-finetune): image, conversations.

Its loader takes one image for each <image> of a human turn, in order, and refuses a record where some are left over.
Its documentation names the field of several images `images`; what its code reads is `image`, text or list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from embodied_midtrain.sources.export.conversations import DATA, ConversationForm
from embodied_midtrain.sources.export.coordinates import Coordinates
from embodied_midtrain.sources.export.row import Row


class QwenForm(ConversationForm):
    """Coordinates from 0 to 1000 as Qwen3-VL has them; Qwen2.5-VL wants its own pixels (`qwen2.5`)."""

    coordinates: ClassVar[Coordinates] = "thousand"
    reserved: ClassVar[tuple[str, ...]] = ("<image>", "<video>")

    def record(self, row: Row) -> dict[str, Any]:
        names = [picture.name for picture in row.pictures]
        image = {"image": names[0] if len(names) == 1 else names} if names else {}
        return {**image, "conversations": row.conversation(), **row.facts}

    def hint(self, out: Path) -> str:
        paths = f'{{"annotation_path": "{out / DATA}", "data_path": "{out}"}}'
        return f"qwen-vl-finetune, qwenvl/data/__init__.py: {self.name.upper()} = {paths}; add it to data_dict"
