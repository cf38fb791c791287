"""Which family a model belongs to: the one place that names model types."""

from __future__ import annotations

from typing import Any

from embodied_midtrain.backbones.family import Family
from embodied_midtrain.backbones.idefics import Idefics
from embodied_midtrain.backbones.internvl import InternVL
from embodied_midtrain.backbones.paligemma import PaliGemma
from embodied_midtrain.backbones.qwen_vl import Qwen3VL, Qwen25VL

FAMILIES: dict[str, type[Family]] = {
    "embodied_compact": Family,
    "idefics3": Idefics,
    "internvl": InternVL,
    "paligemma": PaliGemma,
    "qwen2_5_vl": Qwen25VL,
    "qwen3_vl": Qwen3VL,
    "smolvlm": Idefics,
}
"""By `config.model_type`: those that are proven (tests/backbones/test_families.py)."""


def family_of(config: Any) -> Family:
    """The family of a transformers configuration; the plain one for types that are not named here."""
    return FAMILIES.get(str(config.model_type), Family)()
