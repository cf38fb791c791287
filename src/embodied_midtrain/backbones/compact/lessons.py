"""Conversations about pictures that the compact backbone learns from, and their order."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.backbones.compact.check import render_turns
from embodied_midtrain.backbones.compact.general import Thing, prose
from embodied_midtrain.backbones.compact.scenes import Asked, Placed, Scene, article, point_question, questions
from embodied_midtrain.backbones.compact.settings import TrainConfig
from embodied_midtrain.samples import Turn

BLOCK = 4
"""Steps whose rows are drawn together and sorted by length, so that little is padding."""
PROMPTS = ("What is this?", "Describe the image.", "What does this picture show?", "What can be seen here?")


@dataclass(frozen=True)
class Picture:
    """A picture whose vision features are kept: a labelled thing, or a composed scene."""

    thing: Thing | None = None
    placed: tuple[Placed, ...] = ()


def _conversation(picture: Picture, known: Sequence[str], config: TrainConfig, rng: random.Random) -> list[Turn]:
    if picture.thing is None:
        scene = Scene(Image.new("RGB", (1, 1)), picture.placed)
        asked: list[Asked] = []
        told: set[str] = set()
        for _ in range(config.questions):
            pointing = point_question(scene, rng) if rng.random() < config.points else None
            if pointing is not None and told.isdisjoint(pointing.about):
                asked.append(pointing)
                told |= pointing.about
        asked += questions(scene, known, rng, config.questions - len(asked), told)
        return [turn for one in asked for turn in one.turns]
    return _about(picture.thing, known, rng)


def _about(thing: Thing, known: Sequence[str], rng: random.Random) -> list[Turn]:
    """Two or three questions about a labelled picture, its name first."""
    name = article(thing.label)
    kind = "photo" if thing.photo else "drawing"
    prompt = rng.choice(PROMPTS)
    long = prompt == "Describe the image." and rng.random() < 0.5
    said = f"A {kind} of {name}." if long else f"{name.capitalize()}."
    turns = [Turn("user", prompt), Turn("assistant", said)]
    there = rng.random() < 0.5
    label = thing.label if there else rng.choice(known)
    if rng.random() < 0.5 and (there or label not in thing.label):
        turns += [Turn("user", f"Is this {article(label)}?"), Turn("assistant", "Yes." if there else "No.")]
    if thing.words and rng.random() < 0.4:
        turns += [Turn("user", "Which keywords fit?"), Turn("assistant", f"{', '.join(thing.words[:4])}.")]
    return turns


def batches(
    backbone: Backbone, pictures: Sequence[Picture], vision: Sequence[Tensor], config: TrainConfig
) -> Callable[[int], list[Rendered]]:
    """A function from a step to its rows; equal for equal steps, whichever came before."""
    single = [n for n, p in enumerate(pictures) if p.thing is not None]
    composed = [n for n, p in enumerate(pictures) if p.placed]
    known = sorted({p.label for picture in pictures for p in picture.placed})
    paragraphs = list(prose())
    block: dict[int, list[list[Rendered]]] = {}

    def rows_of(step: int) -> list[Rendered]:
        number = step // BLOCK
        if number not in block:
            block.clear()
            block[number] = drawn(number)
        return block[number][step % BLOCK]

    def drawn(number: int) -> list[list[Rendered]]:
        rng = random.Random(f"{config.seed}:block:{number}")
        rows = []
        for k in range(BLOCK * config.batch_size):
            if k % 16 == 15:  # its place in the block says of which kind a conversation is
                turns = [Turn("user", "Write something."), Turn("assistant", rng.choice(paragraphs))]
                rows.append(render_turns(backbone, turns, None))
                continue
            turns = []
            while not turns:
                n = rng.choice(single if k % 16 < 4 else composed)
                turns = _conversation(pictures[n], known, config, rng)
            rows.append(render_turns(backbone, turns, vision[n]))
        rows.sort(key=len)
        cut = [rows[k * config.batch_size : (k + 1) * config.batch_size] for k in range(BLOCK)]
        rng.shuffle(cut)
        return cut

    return rows_of
