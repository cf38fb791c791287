"""One tiny random model a family, of its true classes, with its true processor: no network, no torchvision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMProcessor,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from embodied_midtrain.backbones.compact.lite2 import LiteConfig
from embodied_midtrain.backbones.compact.model import CompactConfig, CompactForConditionalGeneration
from embodied_midtrain.backbones.compact.processor import make_processor, register
from embodied_midtrain.backbones.processors import without_video

CHAT = ["<pad>", "<|im_start|>", "<|im_end|>"]
TILES = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
SPECIAL = [*CHAT, "<image>", "<fake_token_around_image>", "<global-img>", *TILES]
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def template(image: str) -> str:
    """A chat template, with what stands for a picture."""
    return (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}:{% for p in m['content'] %}"
        "{% if p['type'] == 'image' %}" + image + "{% else %}{{ p['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}"
    )


def tokenizer(special: list[str], **named: Any) -> PreTrainedTokenizerFast:
    """Bytes, and special tokens of which the first three are padding, beginning and end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={t: n for n, t in enumerate([*special, *letters])}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    pad, bos, eos, *others = special
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=pad, bos_token=bos, eos_token=eos, additional_special_tokens=others, **named
    )


def compact() -> tuple[Any, Any]:
    register()
    words = tokenizer(SPECIAL)
    vision = LiteConfig(stem=4, stages=[[1, 3, 2, 1, 4], [1, 3, 2, 2, 8]], detail_stage=0, image_size=32)
    config = CompactConfig(
        text_config={"model_type": "llama", "vocab_size": len(words), **TEXT},
        vision_config=vision,
        tokens_per_side=2,
        connector_width=16,
        image_token_id=SPECIAL.index("<image>"),
    )
    return CompactForConditionalGeneration(config), make_processor(words, config)


def _idefics(config: Any, model: Any, images: Any, processor: Any, *none: None) -> tuple[Any, Any]:
    words = tokenizer([*SPECIAL, "<end_of_utterance>"])
    size = {"longest_edge": 32}
    made = processor(
        images(size={"longest_edge": 64}, max_image_size=size), words, *none, image_seq_len=4,
        chat_template=template("<image>"),
    )  # fmt: skip
    return model(
        config(
            image_token_id=SPECIAL.index("<image>"),
            pad_token_id=0,
            scale_factor=2,
            vision_config={**VISION, "image_size": 32, "patch_size": 8},
            text_config={"model_type": "llama", "vocab_size": len(words), **TEXT},
        )
    ), made


def idefics3() -> tuple[Any, Any]:
    return _idefics(Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessorPil, Idefics3Processor)


def smolvlm() -> tuple[Any, Any]:
    processor = without_video(SmolVLMProcessor)
    return _idefics(SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMImageProcessorPil, processor, None)


def internvl() -> tuple[Any, Any]:
    special = [*CHAT, "<IMG_CONTEXT>", "<img>", "</img>", "<video>", "<box>", "</box>"]
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    words = tokenizer(special, model_specific_special_tokens=named)
    images = GotOcr2ImageProcessorPil(size={"height": 28, "width": 28})
    processor = without_video(InternVLProcessor)(
        images, words, None, image_seq_length=4, chat_template=template("<IMG_CONTEXT>\n")
    )
    config = InternVLConfig(
        image_token_id=special.index("<IMG_CONTEXT>"),
        image_seq_length=4,
        vision_config={**VISION, "image_size": [28, 28], "patch_size": [7, 7]},
        text_config={"model_type": "qwen3", "vocab_size": len(words), "head_dim": 16, **TEXT},
    )
    return InternVLForConditionalGeneration(config), processor


def _qwen_words() -> tuple[PreTrainedTokenizerFast, dict[str, int]]:
    special = [*CHAT, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    ids = {f"{name}_token_id": special.index(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    ids |= {f"{name}_token_id": special.index(f"<|{name}_pad|>") for name in ("image", "video")}
    return tokenizer(special), ids


def _qwen(kind: Any, words: Any) -> Any:
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 64 * 1000}, patch_size=4)
    seen = "<|vision_start|><|image_pad|><|vision_end|>"
    return without_video(kind)(images, words, None, chat_template=template(seen))


QWEN_VISION = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_heads": 2,
    "out_hidden_size": 32,
    "patch_size": 4,
}


def qwen2_5_vl() -> tuple[Any, Any]:
    words, ids = _qwen_words()
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    config = Qwen2_5_VLConfig(
        vision_config={**QWEN_VISION, "window_size": 16, "fullatt_block_indexes": [1]},
        text_config={"vocab_size": len(words), "rope_parameters": rope, **TEXT},
        **ids,
    )
    return Qwen2_5_VLForConditionalGeneration(config), _qwen(Qwen2_5_VLProcessor, words)


def qwen3_vl() -> tuple[Any, Any]:
    words, ids = _qwen_words()
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True, "rope_theta": 10000.0}
    config = Qwen3VLConfig(
        vision_config={**QWEN_VISION, "num_position_embeddings": 36, "deepstack_visual_indexes": [0]},
        text_config={"vocab_size": len(words), "head_dim": 16, "rope_parameters": rope, **TEXT},
        **ids,
    )
    return Qwen3VLForConditionalGeneration(config), _qwen(Qwen3VLProcessor, words)


def _paligemma(text: dict[str, Any]) -> tuple[Any, Any]:
    images = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    images.image_seq_length = 4
    words = tokenizer(["<pad>", "<bos>", "<eos>", "<image>"])
    processor = PaliGemmaProcessor(images, words)
    config = PaliGemmaConfig(
        image_token_index=words.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
        vision_config={
            "model_type": "siglip_vision_model",
            "vision_use_head": False,
            "image_size": 32,
            "patch_size": 16,
            **VISION,
        },
        text_config={"vocab_size": len(words), "head_dim": 16, **TEXT, **text},
    )
    return PaliGemmaForConditionalGeneration(config), processor


def paligemma() -> tuple[Any, Any]:
    return _paligemma({"model_type": "gemma"})


def paligemma2() -> tuple[Any, Any]:
    # A window shorter than a sample, and a cap that bites.
    return _paligemma({"model_type": "gemma2", "sliding_window": 16, "final_logit_softcapping": 0.5})


MAKERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "compact": compact,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "internvl": internvl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "paligemma": paligemma,
    "paligemma2": paligemma2,
}
"""Model and processor."""
