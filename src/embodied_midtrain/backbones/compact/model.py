"""The compact backbone as a transformers model: EfficientNet-Lite2, a connector, a (shortened) SmolLM2.

The connector turns the tower's grid of cells into visual tokens. A position is learnt for each cell and added before
the nonlinearity, so that pooling cells into fewer tokens keeps what was where: pointing needs that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, GenerationMixin, LlamaConfig, LlamaModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import BaseModelOutputWithPooling, ModelOutput

from embodied_midtrain.backbones.compact.lite2 import LiteConfig, LiteTower


class CompactConfig(PreTrainedConfig):
    """Sizes of the compact backbone."""

    model_type = "embodied_compact"
    sub_configs_defaults = {  # noqa: RUF012 (transformers' way)
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
        "vision_config": SubConfigSpec(config_class=LiteConfig),
    }

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    tokens_per_side: int = 5
    """Visual tokens along one side of the image; their square is the count of tokens an image takes."""
    connector_width: int = 1280
    image_token_id: int = 16
    tie_word_embeddings: bool = True

    @property
    def image_tokens(self) -> int:
        return self.tokens_per_side**2


class Connector(nn.Module):
    """Cells of the tower -> visual tokens of the language model."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        vision, text = config.vision_config, config.text_config
        assert isinstance(vision, LiteConfig) and isinstance(text, LlamaConfig)
        self.grid, self.side = vision.grid, config.tokens_per_side
        self.rows = nn.Parameter(torch.zeros(vision.grid, config.connector_width))
        self.columns = nn.Parameter(torch.zeros(vision.grid, config.connector_width))
        self.inward = nn.Linear(vision.width, config.connector_width)
        self.outward = nn.Linear(config.connector_width, text.hidden_size)
        self.norm = nn.LayerNorm(text.hidden_size)
        self.places = nn.Parameter(torch.zeros(self.side**2, text.hidden_size))

    def forward(self, cells: Tensor) -> Tensor:
        """[n, grid * grid, width] -> [n, side * side, hidden]: what is seen, and where."""
        return self.words(cells) + self.places

    def words(self, cells: Tensor) -> Tensor:
        """What is seen, without where; trained towards the embeddings of the words for it."""
        place = (self.rows[:, None] + self.columns[None, :]).flatten(0, 1)
        x = F.gelu(self.inward(cells.to(self.inward.weight.dtype)) + place)
        if self.side != self.grid:
            x = self._pooling(x) @ x
        return self.norm(self.outward(x))

    def _pooling(self, like: Tensor) -> Tensor:
        """[side * side, grid * grid]: adaptive average pooling as a product, ten times as fast as the library's."""
        line = F.adaptive_avg_pool1d(torch.eye(self.grid, device=like.device), self.side).T
        return torch.kron(line.contiguous(), line.contiguous()).to(like.dtype)


@dataclass
class CompactOutput(ModelOutput):
    """What the model gives out; `logits` is None for the part without the head."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class CompactPreTrainedModel(PreTrainedModel):
    config_class = CompactConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["LlamaDecoderLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Connector):
            # As large as the features, so that places differ from the first step on.
            init.normal_(module.rows, std=0.5)
            init.normal_(module.columns, std=0.5)
            # Word embeddings have a norm of about 3; what is seen and where it is should start as large.
            init.normal_(module.places, std=0.12)
            init.constant_(module.norm.weight, 0.12)
            init.normal_(module.inward.weight, std=module.inward.in_features**-0.5)
            init.normal_(module.outward.weight, std=module.outward.in_features**-0.5)
        elif isinstance(module, nn.Conv2d):
            fan_in = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
            init.normal_(module.weight, std=(2.0 / fan_in) ** 0.5)


class CompactModel(CompactPreTrainedModel):
    """Tower, connector and language model without its head."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__(config)
        assert isinstance(config.vision_config, LiteConfig) and isinstance(config.text_config, LlamaConfig)
        self.vision_tower = LiteTower(config.vision_config)
        self.connector = Connector(config)
        self.language_model = LlamaModel(config.text_config)
        self.post_init()

    def get_image_features(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """[n, 3, size, size] in 0..255 -> `pooler_output` [n, tokens, hidden]."""
        cells = self.vision_tower(pixel_values)
        return BaseModelOutputWithPooling(last_hidden_state=cells, pooler_output=self.connector(cells))

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> CompactOutput:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            if input_ids is None:
                raise ValueError("pixel_values need input_ids, which say where the image tokens are")
            features = self.get_image_features(pixel_values).pooler_output.to(inputs_embeds.dtype)
            mask = (input_ids == self.config.image_token_id)[..., None].expand_as(inputs_embeds)
            if int(mask.sum()) != features.numel():
                raise ValueError(f"{int(mask[..., 0].sum())} image tokens for {features.shape[0]} images")
            inputs_embeds = inputs_embeds.masked_scatter(mask, features)
        out = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )
        return CompactOutput(
            last_hidden_state=out.last_hidden_state,
            past_key_values=out.past_key_values,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
        )


class CompactForConditionalGeneration(CompactPreTrainedModel, GenerationMixin):
    """The whole model; `logits` are [batch, tokens, vocabulary]."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: CompactConfig) -> None:
        super().__init__(config)
        assert isinstance(config.text_config, LlamaConfig)
        self.model = CompactModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        return self.model.get_image_features(pixel_values, **kwargs)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CompactOutput:
        out = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(out.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size)
        return CompactOutput(
            loss=loss,
            logits=logits,
            past_key_values=out.past_key_values,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
        )
