"""What differs from one family of models to the next, and what it is for most of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import ProcessorMixin

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.backbones.regions import percent
from embodied_midtrain.backbones.rows import TEXT_KEYS
from embodied_midtrain.samples import Region


class Family:
    """The plain family: the language model reads embeddings in a row and nothing else; places are percentages.

    Each method says what `Backbone` asks of it; a family of its own overrides what it does otherwise.
    `families.family_of` names the family of a model type.
    """

    visions: tuple[str, ...] = ("vision_tower", "vision_model", "visual")
    connectors: tuple[str, ...] = ("connector", "multi_modal_projector")
    languages: tuple[str, ...] = ("language_model", "text_model")

    # -- parts -------------------------------------------------------------------------------------------------------

    def vision(self, base: Any) -> nn.Module:
        return self._part(base, self.visions)

    def connector(self, base: Any) -> list[nn.Module]:
        """The modules between vision and language; the first gives the features at image tokens."""
        return [self._part(base, self.connectors)]

    def language(self, base: Any) -> nn.Module:
        return self._part(base, self.languages)

    def groups(self, base: Any) -> dict[str, list[nn.Parameter]]:
        """The parameters as "vision", "connector" and "language" (with its head), each in one of them."""
        connector = [p for module in self.connector(base) for p in module.parameters()]
        taken = {id(p) for p in connector}
        vision = [p for p in self.vision(base).parameters() if id(p) not in taken]
        taken |= {id(p) for p in vision}
        return {
            "vision": vision,
            "connector": connector,
            "language": [p for p in base.parameters() if id(p) not in taken],
        }

    def _part(self, base: Any, names: Sequence[str]) -> nn.Module:
        for name in names:
            if hasattr(base.model, name):
                part: nn.Module = getattr(base.model, name)
                return part
        raise StageError(f"{type(base).__name__} has none of {', '.join(names)}: it needs an adapter of its own.")

    # -- samples to tokens -------------------------------------------------------------------------------------------

    def limit(self, processor: Any, tokens: int) -> bool:
        """Make a picture take at most so many tokens, as far as the family can; False where it cannot choose."""
        return False

    def place(self, processor: Any, region: Region, size: tuple[int, int] | None) -> str:
        """A region as this family says it in text.

        Args:
            size: width and height of the first picture as it lies in the pool; None without one.

        Raises:
            BadSample: where it cannot be said without a picture.
        """
        return percent(region)

    def template(self, processor: Any, messages: list[dict[str, Any]], open_answer: bool) -> str:
        if not getattr(processor, "chat_template", None):
            raise StageError(
                "this model's processor has no chat template, so it is not one that was taught to answer: choose its "
                "instruction-tuned sister, or save a template with its processor."
            )
        # Not the processor's own method: SmolVLM's asks its video processor, which needs torchvision.
        return str(ProcessorMixin.apply_chat_template(processor, messages, add_generation_prompt=open_answer))

    def asked(self, processor: Any) -> dict[str, Any]:
        """What the processor is told besides."""
        return {}

    def tokens(self, processor: Any, text: str, pictures: Sequence[Image.Image]) -> tuple[list[int], dict[str, Tensor]]:
        """Text that holds the image marks of `pictures`: its token ids, and the pixel tensors."""
        told = {"add_special_tokens": False, "return_tensors": "pt", **self.asked(processor)}
        made = processor(text=[text], images=list(pictures), **told)
        pixels = {k: v for k, v in made.items() if k not in TEXT_KEYS and isinstance(v, Tensor)}
        return made["input_ids"][0].tolist(), pixels

    # -- the model ---------------------------------------------------------------------------------------------------

    def attention(self, config: Any) -> str:
        """transformers' name of the quickest exact attention that the family has on a GPU without more packages."""
        return "sdpa"

    def extras(self, base: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a batch of `collate` or `pack` needs besides; computed there, off the device."""
        return {}

    def own(self, base: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The batch as the model's own `forward` and `generate` take it."""
        return {k: v for k, v in batch.items() if k not in ("labels", "rope_positions")}

    def features(self, base: Any, pixels: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """[image tokens of all pictures, hidden], and the same of what goes into later layers."""
        return flat(base.get_image_features(**pixels).pooler_output), []

    def reading(self, base: Any, embedded: Tensor, batch: Mapping[str, Tensor], deep: list[Tensor]) -> dict[str, Any]:
        """The other arguments of the language model for `embedded` [batch, tokens, hidden].

        Without an attention mask, position ids that start again keep the samples of a packed row apart: transformers
        makes the mask from them.
        """
        return {"attention_mask": batch.get("attention_mask"), "position_ids": batch.get("position_ids")}

    def logits(self, base: Any, states: Tensor) -> Tensor:
        """[..., hidden] -> [..., vocabulary]"""
        logits: Tensor = base.get_output_embeddings()(states)
        return logits

    def identity(self, processor: Any) -> str:
        """What changes a sample's rendering besides the chat template; "" where nothing can."""
        return ""


def refuse_mismatch(tokens: int, features: int) -> None:
    """Raises: ValueError where pictures and image tokens are not of one another."""
    if tokens != features:
        raise ValueError(
            f"{tokens} image tokens, but the pictures give {features} features: the processor does not belong to this "
            "model, or a sample was cut inside its picture"
        )


def flat(features: Tensor | Sequence[Tensor]) -> Tensor:
    """Features of several pictures one after the other: [image tokens, hidden]."""
    if isinstance(features, Tensor):
        return features.flatten(0, -2)
    return torch.cat([f.flatten(0, -2) for f in features])
