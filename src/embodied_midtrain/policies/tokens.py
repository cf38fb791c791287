"""Actions as words of the language model: FAST tokens, predicted by its own head (pi0-FAST, arXiv 2501.09747).

Action tokens stand for the last tokens of the model's own vocabulary that are no special ones: of a byte-pair
vocabulary these were merged last and are the rarest. Nothing is added to the model, so that the checkpoint stays one
that any tool loads, tied embeddings stay tied, and LoRA and a frozen embedding still have usable vectors to begin from;
added rows would be random, and would have to be trained and carried about beside the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.backbones.backbone import IGNORED, Backbone, Rendered
from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.policies.fast import FastTokenizer
from embodied_midtrain.policies.heads import Answer, Goal, as_answer
from embodied_midtrain.policies.net import Net
from embodied_midtrain.policies.prefix import next_positions

if TYPE_CHECKING:
    from embodied_midtrain.policies.settings import FinetuneConfig


class ActionTokens:
    """FAST tokens in a language model's vocabulary.

    Attributes:
        fast: the tokenizer; token n is word `words[n]` of the model.
        end: the word that ends an answer.
        said, malformed: chunks generated so far, and how many of them were not whole.

    Raises:
        StageError: where the model has fewer words to give.
    """

    def __init__(self, backbone: Backbone, fast: FastTokenizer) -> None:
        free = free_words(backbone)
        if fast.size > len(free):
            raise StageError(
                f"{fast.size} action tokens, but {backbone.name} has {len(free)} plain words; set a smaller "
                "fast_vocabulary"
            )
        self.fast = fast
        self.words = free[: fast.size]
        self.end = int(backbone.processor.tokenizer.eos_token_id)
        self.said = self.malformed = 0

    def answered(self, rows: Sequence[Rendered], goal: Goal) -> list[Rendered]:
        """The rows with their chunks as the answer, which alone is learnt."""
        spoken = self.fast.encode(goal.vector.detach().float().cpu().numpy())
        return [self._with_answer(row, tokens) for row, tokens in zip(rows, spoken, strict=True)]

    def _with_answer(self, row: Rendered, tokens: Sequence[int]) -> Rendered:
        words = [*(self.words[n] for n in tokens), self.end]
        return replace(row, ids=[*row.ids, *words], learnt=[False] * len(row) + [True] * len(words))

    def loss(self, backbone: Backbone, batch: Mapping[str, Tensor], states: Tensor | None = None) -> Tensor:
        """Cross-entropy of the answers of `answered`, collated: the mean over rows of each row's mean over its tokens.

        So a row weighs the same whatever its length and whatever it is batched with.
        """
        logits, targets = backbone.answer_logits(batch, states)
        counts = (batch["labels"][:, 1:] != IGNORED).sum(1).to(logits.device)
        weights = (1 / counts).repeat_interleave(counts) / len(counts)
        return (F.cross_entropy(logits.float(), targets, reduction="none") * weights).sum()

    @torch.no_grad()
    def generate(self, backbone: Backbone, rows: Sequence[Rendered]) -> list[list[int]]:
        """The likeliest action tokens after each row, one by one until the end; no other words can be said."""
        said: list[list[int]] = [[] for _ in rows]
        for length in sorted({len(row) for row in rows}):
            # Rows of one length need no padding, over which a window that slides would stumble.
            chosen = [n for n, row in enumerate(rows) if len(row) == length]
            for n, tokens in zip(chosen, self._generate(backbone, [rows[n] for n in chosen]), strict=True):
                said[n] = tokens
        return said

    def _generate(self, backbone: Backbone, rows: Sequence[Rendered]) -> list[list[int]]:
        batch = backbone.collate(rows)
        cache = DynamicCache()
        states = backbone.states(batch, cache=cache)[:, -1]
        mask = batch["attention_mask"].to(backbone.device)
        most = self.fast.coefficients
        at = next_positions(backbone, batch, mask.sum(1), most)
        allowed = torch.tensor([*self.words, self.end], device=backbone.device)
        embed = backbone.base.get_input_embeddings()
        said: list[list[int]] = [[] for _ in rows]
        talking = set(range(len(rows)))
        for step in range(most):
            chosen = backbone.logits(states)[:, allowed].argmax(-1)
            for n, token in enumerate(chosen.tolist()):
                if n in talking and token < len(self.words):
                    said[n].append(token)
                else:
                    talking.discard(n)
            if not talking or step + 1 == most:
                break
            mask = F.pad(mask, (0, 1), value=1)
            out = backbone.language(
                inputs_embeds=embed(allowed[chosen])[:, None],
                attention_mask=mask,
                position_ids=at[:, step : step + 1],
                past_key_values=cache,
                use_cache=True,
            )
            states = out.last_hidden_state[:, -1]
        return said


def free_words(backbone: Backbone) -> list[int]:
    """The plain words of the model's vocabulary, the rarest (last) first."""
    tokenizer = backbone.processor.tokenizer
    taken = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder, backbone.image_token_id}
    rows = min(len(tokenizer), backbone.base.get_output_embeddings().weight.shape[0])
    return [n for n in reversed(range(rows)) if n not in taken]


class FastNet(Net):
    """Nothing but words: all that is trained is the backbone."""

    def __init__(self, spec: ActionSpec, tokens: ActionTokens) -> None:
        super().__init__()
        self.gripper = spec.gripper is not None
        self.tokens = tokens

    def answer(self, backbone: Backbone, rows: Sequence[Rendered]) -> Answer:
        tokens = self.tokens
        chunks, whole = tokens.fast.decode(tokens.generate(backbone, rows))
        tokens.said += len(rows)
        tokens.malformed += int((~whole).sum())
        return as_answer(torch.from_numpy(chunks).to(backbone.device), self.gripper)

    def loss(self, backbone: Backbone, rows: Sequence[Rendered], goal: Goal, config: FinetuneConfig) -> Tensor:
        return self.tokens.loss(backbone, backbone.collate(self.tokens.answered(rows, goal)))

    def probe(self, backbone: Backbone, rows: Sequence[Rendered]) -> Tensor:
        # A word flips at the smallest change of the weights; what it is chosen by does not.
        batch = backbone.collate(rows)
        last = backbone.last(backbone.states(batch), batch, 1, queries=False)[:, 0]
        return backbone.logits(last)

    def save(self, folder: Path) -> None:
        self.tokens.fast.save(folder)
