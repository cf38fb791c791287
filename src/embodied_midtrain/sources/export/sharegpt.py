"""ShareGPT's JSON with the `dataset_info.json` by which LLaMA-Factory finds it (its data/README.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from embodied_midtrain.artifacts import StageRun, write_json
from embodied_midtrain.sources.export.conversations import DATA, ConversationForm
from embodied_midtrain.sources.export.coordinates import Coordinates
from embodied_midtrain.sources.export.row import Row

INFO = "dataset_info.json"


class ShareGptForm(ConversationForm):
    """Every record has `images`, if only an empty list: the loader wants one type for the column."""

    coordinates: ClassVar[Coordinates] = "thousand"
    reserved: ClassVar[tuple[str, ...]] = ("<image>", "<video>", "<audio>")

    def record(self, row: Row) -> dict[str, Any]:
        names = [picture.name for picture in row.pictures]
        return {"conversations": row.conversation(), "images": names, **row.facts}

    def first(self, lines: Iterable[str]) -> int:
        # LLaMA-Factory takes the column's type from its first 1,000 records, and fails where these have no image.
        return next((n for n, line in enumerate(lines) if json.loads(line)["images"]), 0)

    def finish(self, run: StageRun, parts: int) -> None:
        super().finish(run, parts)
        about = {
            "file_name": DATA,
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", "images": "images"},
            "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"},
        }
        write_json(run.file(INFO), {self.name: about})

    def hint(self, out: Path) -> str:
        return f"LLaMA-Factory: dataset_dir: {out}, dataset: {self.name} (images are found from the same folder)"
