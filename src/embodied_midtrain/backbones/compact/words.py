"""First step of the training: visual tokens that mean words, before any language model is in the way.

Trained together with the language model from the start, a connector of this size learns to say nothing: to the model
its output is noise at first, and the model gets by on the text (seen: 700 steps, and the picture still made no
difference). So each visual token is first drawn to the embedding of the word for what is there, by contrast with all
other words. No language model is run for it, so this takes a minute or two.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.compact.model import Connector
from embodied_midtrain.backbones.compact.scenes import Placed
from embodied_midtrain.backbones.precision import autocast
from embodied_midtrain.progress import progress_bar

NOTHING = "background"
"""The word for tokens where no thing is."""
SHARPNESS = 0.07
"""Temperature of the contrast."""
NO_TARGET = -100


def word_vectors(backbone: Backbone, labels: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The mean word embedding [hidden], and for each label its words' direction from there [labels, hidden]."""
    table = backbone.base.get_input_embeddings().weight.detach().float()
    middle = table.mean(0)
    tokenizer = backbone.processor.tokenizer
    rows = [table[tokenizer(f" {label}", add_special_tokens=False)["input_ids"]].mean(0) for label in labels]
    return middle, F.normalize(torch.stack(rows) - middle, dim=1)


def targets_of(label: str, placed: Sequence[Placed], side: int, number: dict[str, int]) -> list[int]:
    """For each visual token the number of the label that it should mean.

    Args:
        label: of a picture that shows one thing; then only the middle of it counts.
        placed: the things of a scene, where `label` is empty.
    """
    found = []
    for row in range(side):
        for column in range(side):
            x, y = (column + 0.5) / side, (row + 0.5) / side
            if label:
                middle = max(abs(x - 0.5), abs(y - 0.5)) < 0.31
                found.append(number[label] if middle else NO_TARGET)
                continue
            over = [p for p in placed if p.box[0] <= x <= p.box[2] and p.box[1] <= y <= p.box[3]]
            name = min(over, key=lambda p: p.area).label if over else NOTHING
            found.append(number[name])
    return found


def align(
    backbone: Backbone,
    vision: Sequence[Tensor],
    shown: Sequence[tuple[str, tuple[Placed, ...]]],
    *,
    steps: int,
    seed: int,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
) -> list[float]:
    """Train the connector so that its tokens mean the words for what they cover; the losses, step by step.

    Args:
        vision: [1, cells, width] a picture.
        shown: a picture's label, or "" and what was placed in it.
    """
    connector = backbone.connector
    assert isinstance(connector, Connector)
    labels = sorted({NOTHING, *(s for s, _ in shown if s), *(p.label for _, placed in shown for p in placed)})
    number = {label: n for n, label in enumerate(labels)}
    middle, vectors = word_vectors(backbone, labels)
    targets = torch.tensor([targets_of(label, placed, connector.side, number) for label, placed in shown])
    # Most tokens of a scene show its ground, and need no more weight than the things.
    weights = torch.ones(len(labels))
    weights[number[NOTHING]] = 0.1
    trained = [p for name, p in connector.named_parameters() if name != "places"]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.05)
    rng = random.Random(f"{seed}:words")
    losses = []
    with progress_bar("words", steps) as bar:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
            chosen = [rng.randrange(len(vision)) for _ in range(batch_size)]
            cells = torch.cat([vision[n] for n in chosen])
            with autocast(backbone.device, "auto"):
                tokens = connector.words(cells)
            directions = F.normalize(tokens.float() - middle, dim=-1).flatten(0, 1)
            wanted = targets[chosen].flatten()
            real = wanted != NO_TARGET
            scores = directions[real] @ vectors.T / SHARPNESS
            loss = F.cross_entropy(scores, wanted[real], weight=weights)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
            bar.advance()
            bar.say(f"loss {losses[-1]:.3f}")
    return losses


@torch.no_grad()
def find(backbone: Backbone, cells: Tensor, label: str) -> tuple[float, float]:
    """Centre of the visual token that means `label` most: how well the words alone point.

    Args:
        cells: [1, cells, width].
    """
    connector = backbone.connector
    assert isinstance(connector, Connector)
    middle, vectors = word_vectors(backbone, [label])
    tokens = F.normalize(connector.words(cells.to(next(connector.parameters()).dtype)).float() - middle, dim=-1)
    best = int((tokens[0] @ vectors[0]).argmax())
    return (best % connector.side + 0.5) / connector.side, (best // connector.side + 0.5) / connector.side
