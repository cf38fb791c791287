"""Opening a backbone by name or folder."""

from __future__ import annotations

from pathlib import Path

import torch

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.families import family_of
from embodied_midtrain.backbones.processors import load_processor
from embodied_midtrain.backbones.quiet import quiet

COMPACT = "compact"
"""The name of the backbone that comes with the package."""
IMAGE_TOKENS = 256
"""Of one picture, at most: one tile of InternVL, a PaliGemma picture, 448 x 448 pixels of Qwen2.5-VL."""
_IMAGE_TOKENS = "embodied_image_tokens"


def load_backbone(
    name_or_folder: str | Path,
    *,
    random_language: int | None = None,
    dtype: torch.dtype | None = None,
    max_tokens: int = 1024,
    image_tokens: int | None = None,
    device: str | None = None,
) -> Backbone:
    """A backbone, ready for inference (`eval` mode).

    Args:
        name_or_folder: "compact", a folder that `Backbone.save` or transformers wrote, or a name on the model hub.
        random_language: a seed; the language model (with its embeddings) then starts from its own random
            initialisation, vision and connector stay pretrained. The control for whether pretraining matters.
        dtype: of the weights; by default as they were saved.
        image_tokens: that one picture may take, where the family can choose (by tiles, or by its size in pixels); by
            default what the folder was saved with, else 256. Few tokens make room for many samples: the largest
            pictures would take thousands.
        device: where it goes, such as "cuda:1"; by default the GPU where there is one.

    Raises:
        StageError: no such model, not an image-text-to-text one, or its weights cannot be had.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    from embodied_midtrain.backbones.compact.processor import register

    register()
    name = str(name_or_folder)
    if name == COMPACT:
        from embodied_midtrain.backbones.compact.weights import compact_folder

        place = str(compact_folder())
    else:
        place = name
        if Path(name).exists() and not (Path(name) / "config.json").is_file():
            raise StageError(f"{name} is no model folder: it has no config.json.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with quiet():
            config = AutoConfig.from_pretrained(place, trust_remote_code=False)
            # On CPUs plain attention is faster than the fused one at the few hundred tokens of a sample.
            attention = "eager" if device == "cpu" else family_of(config).attention(config)
            model = AutoModelForImageTextToText.from_pretrained(
                place, config=config, dtype=dtype or "auto", attn_implementation=attention, trust_remote_code=False
            )
            processor = load_processor(place, config)
    except (OSError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise StageError(
            f"cannot load the backbone {name}: {first} Give 'compact', a folder written by transformers, or the name "
            "of an image-text-to-text model on the hub (with network access)."
        ) from error
    model = model.to(device)
    backbone = Backbone(_label(name), model, processor, max_tokens=max_tokens)
    most = image_tokens or getattr(model.config, _IMAGE_TOKENS, None) or IMAGE_TOKENS
    if backbone.family.limit(processor, most):
        # The model's own file keeps it: some processors let no other key into theirs.
        setattr(model.config, _IMAGE_TOKENS, most)
    if random_language is not None:
        randomise_language(backbone, random_language)
    model.eval()
    return backbone


def _label(name: str) -> str:
    """What artifacts call a backbone: of a folder its last two names, so that equal runs in other places are equal."""
    return "/".join(Path(name).resolve().parts[-2:]) if Path(name).is_dir() else name


def randomise_language(backbone: Backbone, seed: int) -> None:
    """Give the language model (and a head of its own) new weights from its own initialisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(backbone.base)(backbone.base.config)
    source = dict(fresh.named_parameters())
    language = {id(p) for p in backbone.groups()["language"]}
    with torch.no_grad():
        for name, parameter in backbone.base.named_parameters():
            if id(parameter) in language:
                parameter.copy_(source[name])
