"""Pictures and text to what the compact backbone reads; registration of the compact classes with transformers."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedTokenizerBase, ProcessorMixin
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from embodied_midtrain.backbones.compact.lite2 import LiteConfig
from embodied_midtrain.backbones.compact.model import CompactConfig, CompactForConditionalGeneration

IMAGE = "<image>"

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""SmolLM2's own, with images and without its system prompt, which is 20 tokens that say nothing."""


class CompactProcessor(ProcessorMixin):
    """Resizes pictures to the tower's square (so that coordinates stay fractions of the whole), expands "<image>"."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template: str | None = None,
        image_tokens: int = 25,
        **kwargs: Any,
    ) -> None:
        assert tokenizer is not None
        self.image_tokens = image_tokens
        self.image_token = IMAGE
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE)
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        return IMAGE * self.image_tokens


def make_processor(tokenizer: PreTrainedTokenizerBase, config: CompactConfig) -> CompactProcessor:
    assert isinstance(config.vision_config, LiteConfig)
    side = config.vision_config.image_size
    # The tower scales the values itself, so pictures stay bytes until then: a quarter of the memory.
    images = ViTImageProcessorPil(size={"height": side, "width": side}, do_rescale=False, do_normalize=False)
    return CompactProcessor(images, tokenizer, image_tokens=config.image_tokens)


def register() -> None:
    """Make transformers' Auto classes know the compact backbone; `load_backbone` does it by itself."""
    AutoConfig.register("embodied_lite", LiteConfig, exist_ok=True)
    AutoConfig.register("embodied_compact", CompactConfig, exist_ok=True)
    AutoModelForImageTextToText.register(CompactConfig, CompactForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(CompactConfig, CompactProcessor, exist_ok=True)
