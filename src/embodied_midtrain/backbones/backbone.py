"""Any vision-language model behind one small interface: render, collate, states, loss.

It leans on what transformers' image-text-to-text models share: a processor with a chat template, an inner model with a
vision part, a connector and a language model, and image tokens in whose place the connector's output goes. Extraction,
training, evaluation and serving all go through here, so that one preprocessing serves them all (design rule 4).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.backbones.quiet import quiet
from embodied_midtrain.backbones.regions import write_regions
from embodied_midtrain.backbones.rendering import Piece, messages_of, pieces, prompt_messages
from embodied_midtrain.samples import BadSample, Sample

IGNORED = -100
"""Label of a token that is not trained on."""
_TEXT_KEYS = ("input_ids", "attention_mask", "labels", "position_ids")
_NOT_PIXELS = (*_TEXT_KEYS, "token_type_ids", "mm_token_type_ids")
_VISION_NAMES = ("vision_tower", "vision_model", "visual")
_CONNECTOR_NAMES = ("connector", "multi_modal_projector")
_LANGUAGE_NAMES = ("language_model", "text_model")


@dataclass(frozen=True)
class Rendered:
    """One sample made ready, before batching."""

    ids: list[int]
    """Token ids, image tokens expanded."""
    learnt: list[bool]
    """True at tokens that are trained on: assistant text and its end token."""
    pixels: dict[str, Tensor] = field(default_factory=dict)
    """What the processor made of the pictures (may be empty), or {"vision": [n, tokens, width]} from `vision`."""

    def __len__(self) -> int:
        return len(self.ids)


class Backbone:
    """A vision-language model and its processor; made by `load_backbone`.

    Attributes:
        model: the transformers model, or a PEFT model around it (assign it; everything here goes on working).
        hidden: width of the hidden states.
        layers: count of the language model's layers.
        max_tokens: samples that come out longer are refused by `render`.
    """

    def __init__(self, name: str, model: Any, processor: Any, *, max_tokens: int = 1024) -> None:
        self.name = name
        self.model: Any = model
        self.processor: Any = processor
        self.max_tokens = max_tokens
        text_config = model.config.get_text_config()
        self.hidden: int = text_config.hidden_size
        self.layers: int = text_config.num_hidden_layers
        self.image_token_id: int = model.config.image_token_id
        self._control = [t for t in processor.tokenizer.all_special_tokens if t]
        self._pad = processor.tokenizer.pad_token_id or 0

    # -- parts -------------------------------------------------------------------------------------------------------

    @property
    def base(self) -> Any:
        """The transformers model, taken out of PEFT's wrapping."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def language(self) -> nn.Module:
        """The language model without its head."""
        return self._part(_LANGUAGE_NAMES)

    @property
    def connector(self) -> nn.Module:
        return self._part(_CONNECTOR_NAMES)

    @property
    def tower(self) -> nn.Module:
        """The vision part before the connector."""
        return self._part(_VISION_NAMES)

    @property
    def device(self) -> torch.device:
        return next(self.base.parameters()).device

    def _part(self, names: Sequence[str]) -> nn.Module:
        inner = self.base.model
        for name in names:
            if hasattr(inner, name):
                part: nn.Module = getattr(inner, name)
                return part
        raise StageError(f"{type(self.base).__name__} has none of {', '.join(names)}: it needs an adapter of its own.")

    @property
    def caches_vision(self) -> bool:
        """Whether `vision` alone can stand in for the pixels: one tensor [n, tokens, width] for the connector."""
        return str(self.base.config.model_type) == "embodied_compact"

    def fingerprint(self) -> str:
        """Changes with any weight or with how a sample is rendered."""
        digest = hashlib.sha256(str(getattr(self.processor, "chat_template", "")).encode())
        for name, tensor in sorted(self.base.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters as "vision", "connector" and "language" (with its head), each in one of them."""
        vision = list(self.tower.parameters())
        connector = list(self.connector.parameters())
        taken = {id(p) for p in [*vision, *connector]}
        return {
            "vision": vision,
            "connector": connector,
            "language": [p for p in self.base.parameters() if id(p) not in taken],
        }

    # -- samples to tensors ------------------------------------------------------------------------------------------

    def render(self, sample: Sample) -> Rendered:
        """The sample's conversation as tokens, its pictures as tensors.

        Raises:
            BadSample: a broken image, no text to learn, text that holds control tokens, or too many tokens.
        """
        sample.check()
        turns = [(turn.role, write_regions(turn)) for turn in sample.turns]
        for _, text in turns:
            self._refuse_control(text)
        messages = messages_of(turns, len(sample.pictures))
        return self._rendered(pieces(self._template, messages), [p.decode() for p in sample.pictures])

    def prompt(self, picture: Image.Image | NDArray[np.uint8] | None, text: str) -> Rendered:
        """A user turn with picture and text, the assistant's turn opened; nothing is learnt.

        Args:
            picture: an image or uint8 [height, width, 3].
        """
        self._refuse_control(text)
        pictures = [] if picture is None else [_as_image(picture)]
        messages = prompt_messages(text, len(pictures))
        return self._rendered(pieces(self._template, messages, open_answer=True), pictures)

    def _refuse_control(self, text: str) -> None:
        # "<image>" is how many data sets say where the picture goes; it is taken out, not refused.
        found = [token for token in self._control if token in text and token != "<image>"]
        if found:
            raise BadSample("control token", f"the text holds {found[0]}, which this model takes for a command")

    def _template(self, messages: list[dict[str, Any]], open_answer: bool) -> str:
        if not messages:
            return ""
        return str(self.processor.apply_chat_template(messages, add_generation_prompt=open_answer, tokenize=False))

    def _rendered(self, cut: list[Piece], pictures: list[Image.Image]) -> Rendered:
        ids: list[int] = []
        learnt: list[bool] = []
        pixels: dict[str, Tensor] = {}
        for piece in cut:
            if piece.pictures:
                made = self.processor(text=[piece.text], images=pictures, add_special_tokens=False, return_tensors="pt")
                new = made["input_ids"][0].tolist()
                pixels = {k: v for k, v in made.items() if k not in _NOT_PIXELS and isinstance(v, Tensor)}
            else:
                new = self.processor.tokenizer(piece.text, add_special_tokens=False)["input_ids"]
            ids += new
            learnt += [piece.learnt] * len(new)
        if len(ids) > self.max_tokens:
            raise BadSample("too long", f"{len(ids)} tokens, at most {self.max_tokens}")
        return Rendered(ids, learnt, pixels)

    def collate(self, rows: Sequence[Rendered]) -> dict[str, Tensor]:
        """Rows as one batch, padded on the right.

        Returns:
            input_ids, attention_mask and labels [batch, tokens] (labels -100 where nothing is learnt), and the pixel
            tensors of all rows one after the other.
        """
        if not rows:
            raise ValueError("collate needs at least one row")
        length = max(len(row) for row in rows)
        ids = torch.full((len(rows), length), self._pad)
        mask = torch.zeros((len(rows), length), dtype=torch.long)
        labels = torch.full((len(rows), length), IGNORED)
        for n, row in enumerate(rows):
            tokens = torch.tensor(row.ids)
            ids[n, : len(row)] = tokens
            mask[n, : len(row)] = 1
            labels[n, : len(row)] = torch.where(torch.tensor(row.learnt), tokens, IGNORED)
        keys = dict.fromkeys(key for row in rows for key in row.pixels)
        pixels = {key: _join([row.pixels[key] for row in rows if key in row.pixels]) for key in keys}
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, **pixels}

    # -- the model ---------------------------------------------------------------------------------------------------

    def vision(self, pixels: Mapping[str, Tensor]) -> Tensor:
        """What the connector is given, for caching; the vision part is not trained through it.

        Run it under `torch.autocast` to get it in half precision.

        Args:
            pixels: the pixel tensors of `render` or `collate`.

        Returns:
            [n, tokens, width]
        """
        caught: list[Tensor] = []
        handle = self.connector.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
        try:
            with torch.no_grad():
                self._connect({k: v.to(self.device) for k, v in pixels.items() if k not in _TEXT_KEYS})
        finally:
            handle.remove()
        return caught[0]

    def states(
        self,
        batch: Mapping[str, Tensor],
        *,
        layer: int = -1,
        queries: Tensor | None = None,
        together: bool = False,
        cache: Any = None,
    ) -> Tensor:
        """Hidden states of the language model, its head not computed.

        Args:
            batch: from `collate`; may hold `position_ids` that start again at each sample of a packed row, and no
                `attention_mask` then.
            layer: 0 is the embeddings, k what layer k gives out; -1 or `layers` is the last one after the final norm.
            queries: [q, hidden] embeddings put after each row's last real token; `last` finds their states.
            together: let the queries of a row see each other, not only those before them; the row never sees them.
            cache: a transformers `Cache` that takes in each layer's keys and values, with their gradients.

        Returns:
            [batch, tokens (+ q), hidden]
        """
        batch = {k: v.to(self.device) for k, v in batch.items()}
        embedded = self.embed(batch)
        mask = batch.get("attention_mask")
        if queries is not None:
            if mask is None:
                raise ValueError("queries need an attention mask: they go after each row's last real token")
            embedded, mask = _append(embedded, mask, queries)
            if together:
                mask = _block_mask(mask, len(queries), embedded.dtype)
        inner = layer not in (-1, self.layers)
        out = self.language(
            inputs_embeds=embedded,
            attention_mask=mask,
            position_ids=batch.get("position_ids"),
            past_key_values=cache,
            use_cache=cache is not None,
            output_hidden_states=inner,
        )
        states: Tensor = out.hidden_states[layer] if inner else out.last_hidden_state
        return states

    def embed(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What the language model reads: word embeddings, the connector's output at image tokens.

        Returns:
            [batch, tokens, hidden]
        """
        ids = batch["input_ids"].to(self.device)
        embedded: Tensor = self.base.get_input_embeddings()(ids)
        pixels = {k: v.to(self.device) for k, v in batch.items() if k not in _TEXT_KEYS}
        if not pixels:
            return embedded
        features = self._connect(pixels).to(embedded.dtype)
        places = (ids == self.image_token_id)[..., None]
        if int(places.sum()) != features.shape[0]:
            raise ValueError(
                f"{int(places.sum())} image tokens, but the pictures give {features.shape[0]} features: "
                "the processor does not belong to this model"
            )
        return embedded.masked_scatter(places.expand_as(embedded), features)

    @torch.no_grad()
    def complete(self, rows: Sequence[Rendered], max_new_tokens: int = 32) -> list[str]:
        """What the model says after each prompt, always choosing the likeliest token."""
        said = [""] * len(rows)
        for length in sorted({len(row) for row in rows}):
            # Rows of one length need no padding, which `generate` would want on the left.
            chosen = [n for n, row in enumerate(rows) if len(row) == length]
            batch = self.collate([rows[n] for n in chosen])
            made = self.base.generate(
                inputs_embeds=self.embed(batch),
                attention_mask=batch["attention_mask"].to(self.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=self._pad,
            )
            texts = self.processor.tokenizer.batch_decode(made, skip_special_tokens=True)
            for n, text in zip(chosen, texts, strict=True):
                said[n] = text.strip()
        return said

    def last(self, states: Tensor, batch: Mapping[str, Tensor], count: int, *, queries: bool = True) -> Tensor:
        """The last `count` real positions of each row: [batch, tokens, hidden] -> [batch, count, hidden].

        Args:
            queries: whether `states` was given `count` queries, which then are these positions.
        """
        lengths = batch["attention_mask"].sum(1).to(states.device) + (count if queries else 0)
        at = lengths[:, None] - count + torch.arange(count, device=states.device)
        return states[torch.arange(len(states), device=states.device)[:, None], at]

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean next-token cross entropy over the learnt tokens; the head is computed at these only."""
        logits, targets = self.answer_logits(batch)
        return F.cross_entropy(logits.float(), targets)

    def answer_logits(self, batch: Mapping[str, Tensor], states: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits [n, vocabulary] and targets [n] at all learnt tokens of the batch, row by row.

        Args:
            states: `states` of the batch, where they are at hand.
        """
        targets = batch["labels"].to(self.device)[:, 1:]
        wanted = targets != IGNORED
        if not bool(wanted.any()):
            raise ValueError("no token of this batch is learnt")
        hidden = (self.states(batch) if states is None else states)[:, :-1][wanted]
        return self.base.get_output_embeddings()(hidden), targets[wanted]

    def _connect(self, pixels: Mapping[str, Tensor]) -> Tensor:
        """Pixel tensors, or cached vision features, to [image tokens of all rows, hidden]."""
        if "vision" in pixels:
            given = pixels["vision"]
            if not torch.is_autocast_enabled(self.device.type):
                given = given.to(next(self.connector.parameters()).dtype)
            features = self.connector(given)
        else:
            features = self.base.get_image_features(**pixels).pooler_output
        if not isinstance(features, Tensor):
            features = torch.cat([f.flatten(0, -2) for f in features])
        return features.flatten(0, -2)

    def save(self, folder: Path | str) -> None:
        """Write model (adapters merged into it) and processor; `load_backbone(folder)` reads them."""
        model = self.model
        if hasattr(model, "merge_and_unload"):
            model = copy.deepcopy(model).merge_and_unload()
        with quiet():
            model.save_pretrained(folder)
            self.processor.save_pretrained(folder)


def _as_image(picture: Image.Image | NDArray[np.uint8]) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"a frame is uint8 [height, width, 3], not {picture.dtype} {list(picture.shape)}")
    return Image.fromarray(picture)


def _join(tensors: list[Tensor]) -> Tensor:
    """Along the first dimension, the others padded with zeros to the largest."""
    sizes = [max(dims) for dims in zip(*(t.shape[1:] for t in tensors), strict=True)]
    padded = []
    for tensor in tensors:
        pads: list[int] = []
        for have, want in zip(reversed(tensor.shape[1:]), reversed(sizes), strict=True):
            pads += [0, want - have]
        padded.append(F.pad(tensor, pads) if any(pads) else tensor)
    return torch.cat(padded)


def _append(embedded: Tensor, mask: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """`queries` after each row's last real token: [batch, tokens + q, hidden] and its mask."""
    rows, tokens, _ = embedded.shape
    count = len(queries)
    lengths = mask.sum(1)
    longer = F.pad(embedded, (0, 0, 0, count))
    at = lengths[:, None] + torch.arange(count, device=embedded.device)
    index = at[..., None].expand(-1, -1, embedded.shape[2])
    longer = longer.scatter(1, index, queries.to(embedded.dtype)[None].expand(rows, -1, -1))
    whole = torch.arange(tokens + count, device=embedded.device) < (lengths + count)[:, None]
    return longer, whole.long()


def _block_mask(mask: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """Causal, but for the last `count` real positions of each row, which see each other: [batch, 1, tokens, tokens].

    As attention adds it: 0 where a query (third dimension) sees a key (fourth), very low elsewhere.
    """
    places = torch.arange(mask.shape[1], device=mask.device)
    lengths = mask.sum(1)[:, None]
    last = (places >= lengths - count) & (places < lengths)
    seen = (places[:, None] >= places)[None] | (last[:, :, None] & last[:, None, :])
    # Padding comes last, so that a real position sees none of it; it sees itself, lest its softmax be over nothing.
    return torch.zeros(seen.shape, dtype=dtype, device=mask.device).masked_fill(~seen, torch.finfo(dtype).min / 2)[
        :, None
    ]
