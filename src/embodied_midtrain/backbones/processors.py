"""Processors as transformers makes them, and without torchvision, which their video part needs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoProcessor, ProcessorMixin
from transformers.utils import cached_file

_VIDEO = "video_processor"
_VIDEO_FILE = "video_preprocessor_config.json"
_CLASSES = {
    "internvl": "InternVLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "qwen3_vl": "Qwen3VLProcessor",
    "smolvlm": "SmolVLMProcessor",
}
"""Of the model types whose processor has a video part."""


def load_processor(place: str, config: Any) -> Any:
    """The processor of a model folder or a name on the hub; without its video part where torchvision is missing.

    Args:
        config: the model's.
    """
    name = _CLASSES.get(config.model_type)
    if name is None or importlib.util.find_spec("torchvision") is not None:
        return AutoProcessor.from_pretrained(place, trust_remote_code=False)
    return without_video(getattr(transformers, name)).from_pretrained(place, trust_remote_code=False)


def without_video(kind: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The processor class without its video processor, whose settings it only hands on; saved under its own name.

    Give None for the video processor where it is made by hand.
    """

    class Still(kind):
        video_settings: str | None = None

        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if name != _VIDEO]

        @classmethod
        def _get_arguments_from_pretrained(cls, place: str, *args: Any, **kwargs: Any) -> list[Any]:
            return [*super()._get_arguments_from_pretrained(place, *args, **kwargs), None]

        @classmethod
        def from_pretrained(cls, place: str, *args: Any, **kwargs: Any) -> Any:
            processor = super().from_pretrained(place, *args, **kwargs)
            found = cached_file(
                place,
                _VIDEO_FILE,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
                _raise_exceptions_for_gated_repo=False,
            )
            if found is not None:
                processor.video_settings = Path(found).read_text(encoding="utf-8")
            return processor

        def to_dict(self) -> dict[str, Any]:
            return {k: v for k, v in super().to_dict().items() if k != "video_settings"}

        def save_pretrained(self, folder: Any, *args: Any, **kwargs: Any) -> Any:
            # Whoever has torchvision loads the whole processor from this folder.
            saved = super().save_pretrained(folder, *args, **kwargs)
            if self.video_settings is not None:
                (Path(folder) / _VIDEO_FILE).write_text(self.video_settings, encoding="utf-8")
            return saved

    Still.__name__ = Still.__qualname__ = kind.__name__
    return Still
