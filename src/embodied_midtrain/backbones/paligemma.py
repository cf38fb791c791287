"""PaliGemma 1 and 2: no conversation, and a prefix (picture and question) whose tokens all see each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from embodied_midtrain.backbones.family import Family
from embodied_midtrain.backbones.regions import location_tokens
from embodied_midtrain.samples import Region


class PaliGemma(Family):
    """Image tokens, <bos>, the question and a line end are the prefix; the answer and <eos> follow (its processor).

    Places are tokens from <loc0000> to <loc1023>, y first (big_vision's PaliGemma README).
    """

    def place(self, processor: Any, region: Region, size: tuple[int, int] | None) -> str:
        return location_tokens(region)

    def template(self, processor: Any, messages: list[dict[str, Any]], open_answer: bool) -> str:
        """What there is instead of a chat template; of several questions, all but the first come after the prefix."""
        tokenizer = processor.tokenizer
        text = ""
        for n, message in enumerate(messages):
            if n == 0:
                count = sum(part["type"] == "image" for part in message["content"])
                text += processor.image_token * count + tokenizer.bos_token
            text += "".join(part["text"] for part in message["content"] if part["type"] == "text")
            text += tokenizer.eos_token if message["role"] == "assistant" else "\n"
        return text

    def tokens(self, processor: Any, text: str, pictures: Sequence[Image.Image]) -> tuple[list[int], dict[str, Tensor]]:
        # Its own call puts <bos> and a line end where it thinks fit.
        longer = text.replace(processor.image_token, processor.image_token * processor.image_seq_length)
        pixels = processor.image_processor(list(pictures), return_tensors="pt")["pixel_values"]
        return processor.tokenizer(longer, add_special_tokens=False)["input_ids"], {"pixel_values": pixels}

    def attention(self, config: Any) -> str:
        # Gemma 2 caps its attention scores, which the fused kernel cannot.
        return "eager" if config.get_text_config().model_type == "gemma2" else "sdpa"

    def extras(self, base: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`token_type_ids` [batch, tokens]: 0 in the prefix, 1 from the first learnt token of a sample on."""
        learnt = batch["labels"] >= 0
        places = batch.get("position_ids")
        number = torch.zeros_like(learnt, dtype=torch.long) if places is None else (places == 0).cumsum(1)
        before = learnt.long().cumsum(1)
        first = torch.ones_like(number, dtype=torch.bool)
        first[:, 1:] = number[:, 1:] != number[:, :-1]
        index = torch.arange(learnt.shape[1], device=learnt.device).expand_as(number)
        start = (first.long() * index).cummax(1).values
        # Learnt tokens before the sample's start are another sample's.
        earlier = before.gather(1, start) - learnt.long().gather(1, start)
        types = (before > earlier).long()
        mask = batch.get("attention_mask")
        return {"token_type_ids": types if mask is None else torch.where(mask.bool(), types, 1)}

    def reading(self, base: Any, embedded: Tensor, batch: Mapping[str, Tensor], deep: list[Tensor]) -> dict[str, Any]:
        places = batch.get("position_ids")
        if places is None:
            places = torch.arange(embedded.shape[1], device=embedded.device).expand(len(embedded), -1)
        mask = batch.get("attention_mask")
        if mask is not None and mask.ndim == 4:
            return {"attention_mask": mask, "position_ids": places + 1}
        # A number for each sample: the prefixes of a packed row do not see each other.
        blocks = (places == 0).cumsum(1)
        if "token_type_ids" in batch:
            blocks = torch.where(batch["token_type_ids"] == 0, blocks, -1)
        text = base.config.get_text_config()
        given = {
            "config": text,
            "inputs_embeds": embedded,
            "attention_mask": mask,
            "past_key_values": None,
            "position_ids": places + 1,
            "block_sequence_ids": blocks,
        }
        masks = create_causal_mask(**given)
        if getattr(text, "sliding_window", None) is not None:
            masks = {"full_attention": masks, "sliding_attention": create_sliding_window_causal_mask(**given)}
        # Its positions count from 1.
        return {"attention_mask": masks, "position_ids": places + 1}

    def logits(self, base: Any, states: Tensor) -> Tensor:
        logits = super().logits(base, states)
        # PaliGemma 2's.
        cap = getattr(base.config.get_text_config(), "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap
