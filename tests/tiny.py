"""Tiny random backbones and made-up robots: what training and policies are tested with in seconds."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor, PreTrainedTokenizerFast
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.compact.lite2 import LiteConfig
from embodied_midtrain.backbones.compact.model import CompactConfig, CompactForConditionalGeneration
from embodied_midtrain.backbones.compact.processor import make_processor, register
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.episodes import ActionSpec, Episode

TILES = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
SPECIAL = ["<pad>", "<|im_start|>", "<|im_end|>", "<image>", "<fake_token_around_image>", "<global-img>", *TILES]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}:{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}"
)
TEXT = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": len(SPECIAL) + 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SPEC = ActionSpec(("x", "y", "gripper"), "delta", "world", "none", 2, 1, (-1.0,) * 3, (1.0,) * 3, 10.0)


def backbone(kind: str) -> Backbone:
    """A fresh "compact" or "smolvlm" of a few thousand weights."""
    return load_backbone(folder(kind))


@cache
def folder(kind: str) -> Path:
    """A folder that holds one, written once."""
    out = Path(mkdtemp(prefix=f"tiny-{kind}-"))
    torch.manual_seed(0)
    model, processor = _smolvlm() if kind == "smolvlm" else _compact()
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return out


def _tokenizer() -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={t: n for n, t in enumerate([*SPECIAL, *letters])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        additional_special_tokens=SPECIAL[3:],
    )


def _smolvlm() -> tuple[Idefics3ForConditionalGeneration, Idefics3Processor]:
    size = {"longest_edge": 32}
    images = Idefics3ImageProcessorPil(do_image_splitting=False, size=size, max_image_size=size)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    config = Idefics3Config(
        image_token_id=SPECIAL.index("<image>"), pad_token_id=0, scale_factor=2, vision_config=vision, text_config=TEXT
    )
    processor = Idefics3Processor(images, _tokenizer(), image_seq_len=4, chat_template=TEMPLATE)
    return Idefics3ForConditionalGeneration(config), processor


def _compact() -> tuple[CompactForConditionalGeneration, object]:
    register()
    vision = LiteConfig(stem=4, stages=[[1, 3, 2, 1, 4], [1, 3, 2, 2, 8]], detail_stage=0, image_size=32)
    config = CompactConfig(
        text_config=TEXT,
        vision_config=vision,
        tokens_per_side=2,
        connector_width=16,
        image_token_id=SPECIAL.index("<image>"),
    )
    return CompactForConditionalGeneration(config), make_processor(_tokenizer(), config)


class Dots:
    """Robots whose gripper is a dot that goes to where the instruction says: pictures and words both matter."""

    name = "dots"
    spec = SPEC

    def __init__(self, episodes: int = 6, length: int = 8, side: int = 32) -> None:
        rng = np.random.default_rng(0)
        self.episodes = []
        for n in range(episodes):
            at = rng.uniform(0.2, 0.8, 2)
            goal, said = ((0.1, 0.5), "go left") if n % 2 else ((0.9, 0.5), "go right")
            if n % 4 > 1:
                said = said.replace("go", "move")
            frames, actions = [], []
            for _ in range(length):
                frame = np.zeros((side, side, 3), np.uint8)
                row, column = (int(v * (side - 6)) for v in (at[1], at[0]))
                frame[row : row + 6, column : column + 6] = (255, 200, 0)
                move = np.clip(3.0 * (np.asarray(goal) - at), -1, 1)
                frames.append(frame)
                actions.append([*move, 1.0 if abs(goal[0] - at[0]) < 0.2 else -1.0])
                at = np.clip(at + 0.1 * move, 0, 1)
            task = "left-v0" if n % 2 else "right-v0"
            self.episodes.append(Episode(f"e{n}", task, said, np.stack(frames), np.asarray(actions, np.float32)))

    def __iter__(self):
        return iter(self.episodes)

    def fingerprint(self) -> str:
        return f"dots-{len(self.episodes)}"
