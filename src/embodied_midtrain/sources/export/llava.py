"""LLaVA's JSON (haotian-liu/LLaVA, docs/Finetune_Custom_Data.md): id, image, conversations of human and gpt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embodied_midtrain.sources.export.conversations import DATA, ConversationForm
from embodied_midtrain.sources.export.row import Row


class LlavaForm(ConversationForm):
    """`image` is a path; a list of paths where there are several (LLaVA-NeXT reads that, the first LLaVA does not)."""

    def record(self, row: Row) -> dict[str, Any]:
        names = [picture.name for picture in row.pictures]
        image = {"image": names[0] if len(names) == 1 else names} if names else {}
        return {"id": row.facts["id"], **image, "conversations": row.conversation(), **row.facts}

    def hint(self, out: Path) -> str:
        return f"LLaVA: --data_path {out / DATA} --image_folder {out}"
