"""Any vision-language model behind one small interface: render, collate, states, loss.

It leans on what transformers' image-text-to-text models share: a processor with a chat template, an inner model with a
vision part, a connector and a language model, and image tokens in whose place the connector's output goes. Extraction,
training, evaluation and serving all go through here, so that one preprocessing serves them all (design rule 4).
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from embodied_midtrain.backbones.depth import only_layers
from embodied_midtrain.backbones.families import family_of
from embodied_midtrain.backbones.family import flat, refuse_mismatch
from embodied_midtrain.backbones.quiet import quiet
from embodied_midtrain.backbones.rendering import Piece, messages_of, pieces, prompt_messages
from embodied_midtrain.backbones.rows import IGNORED, TEXT_KEYS, Rendered, block_mask, collate, lengthen, pack
from embodied_midtrain.samples import BadSample, Sample

__all__ = ["IGNORED", "Backbone", "Rendered"]


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
        self.family = family_of(model.config)
        self._control = _control_tokens(processor)
        self._pad = processor.tokenizer.pad_token_id or 0

    # -- parts -------------------------------------------------------------------------------------------------------

    @property
    def base(self) -> Any:
        """The transformers model, taken out of PEFT's wrapping."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def language(self) -> nn.Module:
        """The language model without its head."""
        return self.family.language(self.base)

    @property
    def connector(self) -> nn.Module:
        return self.family.connector(self.base)[0]

    @property
    def tower(self) -> nn.Module:
        """The vision part; in some families the connector lies inside it (`groups` tells them apart)."""
        return self.family.vision(self.base)

    @property
    def device(self) -> torch.device:
        return next(self.base.parameters()).device

    @property
    def caches_vision(self) -> bool:
        """Whether `vision` alone can stand in for the pixels: one tensor [n, tokens, width] for the connector."""
        return str(self.base.config.model_type) == "embodied_compact"

    def fingerprint(self) -> str:
        """Changes with any weight or with how a sample is rendered."""
        digest = hashlib.sha256(str(getattr(self.processor, "chat_template", "")).encode())
        digest.update(self.family.identity(self.processor).encode())
        for name, tensor in sorted(self.base.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters as "vision", "connector" and "language" (with its head), each in one of them."""
        return self.family.groups(self.base)

    # -- samples to tensors ------------------------------------------------------------------------------------------

    def render(self, sample: Sample) -> Rendered:
        """The sample's conversation as tokens, its pictures as tensors.

        Raises:
            BadSample: a broken image, no text to learn, text that holds control tokens, or too many tokens.
        """
        sample.check()
        for turn in sample.turns:
            self._refuse_control(turn.text)
        pictures = [p.decode() for p in sample.pictures]
        size = pictures[0].size if pictures else None
        turns = [(t.role, t.written(lambda r: self.family.place(self.processor, r, size))) for t in sample.turns]
        messages = messages_of(turns, len(pictures))
        return self._rendered(pieces(self._template, messages), pictures)

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
        return self.family.template(self.processor, messages, open_answer)

    def _rendered(self, cut: list[Piece], pictures: list[Image.Image]) -> Rendered:
        ids: list[int] = []
        learnt: list[bool] = []
        pixels: dict[str, Tensor] = {}
        for piece in cut:
            if piece.pictures:
                new, pixels = self.family.tokens(self.processor, piece.text, pictures)
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
            tensors of all rows one after the other. Some families add a tensor or two about the tokens.
        """
        batch = collate(rows, self._pad)
        return batch | self.family.extras(self.base, batch)

    def pack(self, rows: Sequence[Rendered]) -> dict[str, Tensor]:
        """Rows one after the other as one row without padding; `states` lets none of them see another.

        Returns:
            input_ids, labels and position_ids [1, tokens] (positions start again at each row, whose first token is
            never a target), and the rest as in `collate`; no attention_mask.
        """
        batch = pack(rows)
        return batch | self.family.extras(self.base, batch)

    def own_inputs(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A batch of `collate` as the transformers model's own `forward` and `generate` take it, without labels."""
        return self.family.own(self.base, batch)

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
                self._connect(self._pixels(pixels))
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
            layer: 0 is the embeddings, k what layer k gives out, and none after it runs in vain; -1 or `layers` is the
                last one after the final norm.
            queries: [q, hidden] embeddings put after each row's last real token; `last` finds their states.
            together: let the queries of a row see each other, not only those before them; the row never sees them.
            cache: a transformers `Cache` that takes in each layer's keys and values, with their gradients.

        Returns:
            [batch, tokens (+ q), hidden]

        Raises:
            ValueError: where there is no such layer, or queries come without a mask.
        """
        batch = {k: v.to(self.device) for k, v in batch.items()}
        embedded, deep = self._embed(batch)
        if queries is not None:
            if "attention_mask" not in batch:
                raise ValueError("queries need an attention mask: they go after each row's last real token")
            embedded = _append(embedded, batch["attention_mask"], queries)
            batch = lengthen(batch, len(queries))
            if together:
                batch["attention_mask"] = block_mask(batch, len(queries), embedded.dtype)
        with self._up_to(layer, deep) as beyond:
            out = self._read(embedded, batch, deep, cache=cache, every=beyond)
        states: Tensor = out.hidden_states[layer] if beyond else out.last_hidden_state
        return states

    def layer_states(self, batch: Mapping[str, Tensor], last: int = -1) -> tuple[Tensor, ...]:
        """What each layer gives out: the embeddings, then the states [batch, tokens, hidden] of the layers to `last`.

        Raises:
            ValueError: where there is no such layer.
        """
        batch = {k: v.to(self.device) for k, v in batch.items()}
        embedded, deep = self._embed(batch)
        with self._up_to(last, deep):
            states: tuple[Tensor, ...] = self._read(embedded, batch, deep, every=True).hidden_states
        return states if last == -1 else states[: last + 1]

    @contextlib.contextmanager
    def _up_to(self, layer: int, deep: Sequence[Tensor]) -> Iterator[bool]:
        """Within it no layer runs in vain; whether one beyond `layer` does.

        To what the first layers give out `deep` is added, and of the last layer that runs only the sum can be had; and
        without any layer a model lists no states.
        """
        if not -1 <= layer <= self.layers:
            raise ValueError(f"layer {layer}: {self.name} has layers 0 to {self.layers}, or -1 for the last")
        if layer in (-1, self.layers):
            yield False
            return
        beyond = layer <= len(deep)
        with only_layers(self.language, layer + beyond):
            yield beyond

    def _read(
        self, embedded: Tensor, batch: Mapping[str, Tensor], deep: list[Tensor], *, cache: Any = None, every: bool
    ) -> Any:
        return self.language(
            inputs_embeds=embedded,
            **self.family.reading(self.base, embedded, batch, deep),
            past_key_values=cache,
            use_cache=cache is not None,
            output_hidden_states=every,
        )

    def embed(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What the language model reads first: word embeddings, the connector's output at image tokens.

        Returns:
            [batch, tokens, hidden]
        """
        return self._embed(batch)[0]

    def _embed(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """`embed`, and what the pictures give to later layers."""
        ids = batch["input_ids"].to(self.device)
        pixels = self._pixels(batch)
        places = ids == self.image_token_id
        features, deep = self._connect(pixels) if pixels else (None, [])
        refuse_mismatch(int(places.sum()), 0 if features is None else features.shape[0])
        # Some models have no embedding for the image token.
        embedded: Tensor = self.base.get_input_embeddings()(ids.masked_fill(places, 0))
        if features is not None:
            where = places[..., None].expand_as(embedded)
            embedded = embedded.masked_scatter(where, features.to(embedded.dtype))
        return embedded, deep

    def _pixels(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {k: v.to(self.device) for k, v in batch.items() if k not in TEXT_KEYS}

    @torch.no_grad()
    def complete(self, rows: Sequence[Rendered], max_new_tokens: int = 32) -> list[str]:
        """What the model says after each prompt, always choosing the likeliest token."""
        said = [""] * len(rows)
        for length in sorted({len(row) for row in rows}):
            # Rows of one length need no padding, which `generate` would want on the left.
            chosen = [n for n, row in enumerate(rows) if len(row) == length]
            batch = self.collate([rows[n] for n in chosen])
            if "vision" in batch:
                given = {"inputs_embeds": self.embed(batch), "attention_mask": batch["attention_mask"].to(self.device)}
            else:
                given = {k: v.to(self.device) for k, v in self.own_inputs(batch).items()}
            made = self.base.generate(**given, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=self._pad)
            # With token ids the prompt is given back too.
            made = made[:, length:] if "input_ids" in given else made
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
        return self.logits(hidden), targets[wanted]

    def logits(self, states: Tensor) -> Tensor:
        """The head: final states [..., hidden] -> [..., vocabulary]."""
        return self.family.logits(self.base, states)

    def _connect(self, pixels: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Pixel tensors, or cached vision features, to [image tokens of all rows, hidden]; and for later layers."""
        if "vision" not in pixels:
            return self.family.features(self.base, pixels)
        given = pixels["vision"]
        if not torch.is_autocast_enabled(self.device.type):
            given = given.to(next(self.connector.parameters()).dtype)
        return flat(self.connector(given)), []

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


def _append(embedded: Tensor, mask: Tensor, queries: Tensor) -> Tensor:
    """`queries` after each row's last real token: [batch, tokens + q, hidden]."""
    count = len(queries)
    longer = F.pad(embedded, (0, 0, 0, count))
    at = mask.sum(1)[:, None] + torch.arange(count, device=embedded.device)
    index = at[..., None].expand(-1, -1, embedded.shape[2])
    return longer.scatter(1, index, queries.to(embedded.dtype)[None].expand(len(embedded), -1, -1))


def _control_tokens(processor: Any) -> list[str]:
    """What a tokenizer makes a command of."""
    tokenizer = processor.tokenizer
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return [token for token in dict.fromkeys([*tokenizer.all_special_tokens, *added]) if token]
