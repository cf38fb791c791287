"""Composed scenes: clip art and photos put on a ground, with questions whose answers are known exactly.

Pointing, boxes, counting, relations, naming. Nothing here is a table, a robot or a room.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from embodied_midtrain.backbones.compact.general import Thing
from embodied_midtrain.samples import REGION_MARK, BadSample, Region, Turn

SIDE = 224
"""Pixels."""
COLOURS = (("red", 0), ("orange", 25), ("yellow", 52), ("green", 120), ("blue", 220), ("purple", 285), ("red", 360))


@dataclass(frozen=True)
class Placed:
    """One thing in a scene; `box` is x0, y0, x1, y1 in [0, 1], of its visible part."""

    label: str
    colour: str
    box: tuple[float, float, float, float]

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def area(self) -> float:
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


@dataclass(frozen=True)
class Scene:
    image: Image.Image
    placed: tuple[Placed, ...]


def compose(parts: Sequence[Thing], rng: random.Random) -> Scene:
    """One to five things that hardly overlap; sometimes several copies of one; none where no picture is readable."""
    image = _ground(rng)
    count = rng.choice((1, 2, 2, 3, 3, 4, 5))
    copies = rng.randint(2, 4) if rng.random() < 0.25 else 1
    chosen: list[Thing] = []
    # A few parts may have no more than a few names that cannot be taken for each other.
    for _ in range(100 * count):
        thing = rng.choice(parts)
        if all(not _alike(thing.label, other.label) for other in chosen):
            chosen.append(thing)
        if len(chosen) == count:
            break
    placed: list[Placed] = []
    for n, thing in enumerate(chosen):
        cut = _cut_out(thing)
        if cut is None:
            continue
        for _ in range(copies if n == 0 else 1):
            size = rng.uniform(0.45, 0.7) if count * copies == 1 else rng.uniform(0.2, 0.42)
            if (put := _put(image, cut, thing.label, size, placed, rng)) is not None:
                placed.append(put)
    return Scene(image, tuple(placed))


def _alike(one: str, other: str) -> bool:
    return bool(set(one.split()) & set(other.split())) or one in other or other in one


def _ground(rng: random.Random) -> Image.Image:
    def colour() -> tuple[int, int, int]:
        return rng.randint(90, 255), rng.randint(90, 255), rng.randint(90, 255)

    kind = rng.random()
    if kind < 0.25:
        return Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    image = Image.new("RGB", (SIDE, SIDE), colour())
    if kind < 0.6:
        other = Image.new("RGB", (SIDE, SIDE), colour())
        ramp = Image.linear_gradient("L").resize((SIDE, SIDE)).rotate(rng.choice((0, 90, 180, 270)))
        return Image.composite(image, other, ramp)
    if kind < 0.8:
        draw = ImageDraw.Draw(image)
        for _ in range(rng.randint(3, 8)):
            x, y, r = rng.randint(0, SIDE), rng.randint(0, SIDE), rng.randint(20, 110)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=colour())
        return image.filter(ImageFilter.GaussianBlur(rng.choice((6, 12, 25))))
    return image


@functools.lru_cache(maxsize=4096)
def _cut_out(thing: Thing) -> Image.Image | None:
    """The visible part, small; where the ground is opaque and plain white, it is made transparent."""
    try:
        image = thing.read()
    except BadSample:
        return None
    alpha = np.asarray(image.getchannel("A"))
    if alpha.min() > 250 and thing.source != "cifar10":
        rgb = np.asarray(image.convert("RGB")).copy()
        if (rgb[0] > 245).all() and (rgb[-1] > 245).all():
            filled = Image.fromarray(rgb)
            for corner in ((0, 0), (image.width - 1, 0), (0, image.height - 1), (image.width - 1, image.height - 1)):
                ImageDraw.floodfill(filled, corner, (255, 0, 254), thresh=24)
            outside = (np.asarray(filled) == (255, 0, 254)).all(-1)
            image.putalpha(Image.fromarray(np.where(outside, 0, 255).astype(np.uint8)))
    box = image.getchannel("A").point(lambda a: 255 if a > 40 else 0).getbbox()
    image = image.crop(box) if box else image
    image.thumbnail((160, 160), Image.Resampling.BILINEAR)
    return image


def _put(
    image: Image.Image, cut: Image.Image, label: str, size: float, placed: Sequence[Placed], rng: random.Random
) -> Placed | None:
    scale = size * SIDE / max(cut.size)
    width, height = max(6, round(cut.width * scale)), max(6, round(cut.height * scale))
    for _ in range(12):
        x, y = rng.randint(0, SIDE - width), rng.randint(0, SIDE - height)
        box = (x / SIDE, y / SIDE, (x + width) / SIDE, (y + height) / SIDE)
        if all(_overlap(box, other.box) < 0.1 for other in placed):
            small = cut.resize((width, height), Image.Resampling.BILINEAR)
            if rng.random() < 0.5:
                small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            image.paste(small, (x, y), small)
            return Placed(label, _colour(small), box)
    return None


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Shared area as a fraction of the smaller box."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def _colour(cut: Image.Image) -> str:
    """The one colour that most of it has; empty where there is none such."""
    hsv = np.asarray(cut.convert("RGB").convert("HSV")).reshape(-1, 3).astype(float)
    seen = hsv[np.asarray(cut.getchannel("A")).reshape(-1) > 128]
    if len(seen) < 30:
        return ""
    vivid = seen[(seen[:, 1] > 90) & (seen[:, 2] > 70)]
    if len(vivid) < 0.5 * len(seen):
        return "black" if (seen[:, 2] < 60).mean() > 0.7 else ""
    degrees = vivid[:, 0] * 360 / 255
    names = np.array([min(COLOURS, key=lambda c: abs(c[1] - d))[0] for d in degrees[:: max(1, len(degrees) // 200)]])
    kinds, counts = np.unique(names, return_counts=True)
    return str(kinds[counts.argmax()]) if counts.max() > 0.75 * len(names) else ""


@dataclass(frozen=True)
class Asked:
    """A question on a scene; `target` where the answer is a point, and how it was named."""

    turns: tuple[Turn, Turn]
    kind: str
    target: tuple[float, float] | None = None
    about: frozenset[str] = frozenset()
    """Labels of the things whose name or place it gives away."""


def article(label: str) -> str:
    return f"{'an' if label[:1] in 'aeiou' else 'a'} {label}"


def point_question(scene: Scene, rng: random.Random) -> Asked | None:
    """Where a thing is, named by label, colour or size such that only one fits; None where no thing can be named."""
    things = [p for p in scene.placed if _once(p, scene)]
    ways: list[tuple[str, str, Placed]] = [("name", f"the {p.label}", p) for p in things]
    for p in scene.placed:
        if p.colour and sum(q.colour == p.colour for q in scene.placed) == 1 and len(scene.placed) > 1:
            ways.append(("colour", f"the {p.colour} thing", p))
    ranked = sorted(scene.placed, key=lambda p: p.area)
    if len(ranked) > 1 and ranked[-1].area > 1.5 * ranked[-2].area:
        ways.append(("size", "the largest thing", ranked[-1]))
    if not ways:
        return None
    named = [way for way in ways if way[0] == "name"]
    kind, what, placed = rng.choice(named if named and rng.random() < 0.7 else ways)
    asked = rng.choice(("Point to {}.", "Where is {}? Answer with a point.", "Give the position of {}.", "Locate {}."))
    answer = Turn("assistant", REGION_MARK, (Region("point", placed.centre),))
    turns = (Turn("user", asked.format(what)), answer)
    return Asked(turns, f"point by {kind}", placed.centre, frozenset({placed.label}))


def questions(
    scene: Scene, known: Sequence[str], rng: random.Random, count: int, told: Iterable[str] = ()
) -> list[Asked]:
    """At most `count` questions of mixed kinds, none of which gives an answer to a later one away.

    Where earlier turns name what is there and where, the picture need not be looked at, and is not.

    Args:
        known: labels to ask for things that are not there.
        told: labels of things that earlier questions gave away.
    """
    makers = (
        [point_question] * 5
        + [_box, _at, _at, _count, _count, _relation, _relation, _relative]
        + [lambda s, r: _exists(s, known, r), _list]
    )
    found: list[Asked] = []
    told = set(told)
    for _ in range(4 * count if scene.placed else 0):
        if len(found) == count:
            break
        made = rng.choice(makers)(scene, rng)
        if made is not None and told.isdisjoint(made.about) and all(made.turns[0] != q.turns[0] for q in found):
            found.append(made)
            told |= made.about
    return found


def _once(placed: Placed, scene: Scene) -> bool:
    return sum(p.label == placed.label for p in scene.placed) == 1


def _said(asked: str, answered: str, kind: str, *about: str) -> Asked:
    return Asked((Turn("user", asked), Turn("assistant", answered)), kind, about=frozenset(about))


def _box(scene: Scene, rng: random.Random) -> Asked | None:
    things = [p for p in scene.placed if _once(p, scene)]
    if not things:
        return None
    placed = rng.choice(things)
    answer = Turn("assistant", REGION_MARK, (Region("box", placed.box),))
    return Asked(
        (Turn("user", f"Give the box around the {placed.label}."), answer), "box", about=frozenset({placed.label})
    )


def _at(scene: Scene, rng: random.Random) -> Asked | None:
    placed = rng.choice(scene.placed)
    asked = Turn("user", f"What is at {REGION_MARK}?", (Region("point", placed.centre),))
    return Asked(
        (asked, Turn("assistant", f"{article(placed.label).capitalize()}.")), "at", about=frozenset({placed.label})
    )


def _count(scene: Scene, rng: random.Random) -> Asked | None:
    if rng.random() < 0.5:
        asked = rng.choice(("How many things are there?", "Count the things in the picture."))
        return _said(asked, f"{len(scene.placed)}.", "count")
    label = rng.choice(scene.placed).label
    found = sum(p.label == label for p in scene.placed)
    return _said(f"How many times does the {label} appear?", f"{found}.", "count", label)


def _pair(scene: Scene, rng: random.Random) -> tuple[Placed, Placed] | None:
    things = [p for p in scene.placed if _once(p, scene)]
    if len(things) < 2:
        return None
    one, other = rng.sample(things, 2)
    return one, other


def _relation(scene: Scene, rng: random.Random) -> Asked | None:
    pair = _pair(scene, rng)
    if pair is None:
        return None
    one, other = pair
    axis = rng.randint(0, 1)
    away = one.centre[axis] - other.centre[axis]
    if abs(away) < 0.12:
        return None
    low, high = (("to the left of", "to the right of"), ("above", "below"))[axis]
    said = rng.choice((low, high))
    true = (away < 0) == (said == low)
    return _said(
        f"Is the {one.label} {said} the {other.label}?", "Yes." if true else "No.", "relation", one.label, other.label
    )


def _relative(scene: Scene, rng: random.Random) -> Asked | None:
    pair = _pair(scene, rng)
    if pair is None:
        return None
    one, other = pair
    across, down = one.centre[0] - other.centre[0], one.centre[1] - other.centre[1]
    if abs(abs(across) - abs(down)) < 0.1:
        return None
    if abs(across) > abs(down):
        answer = "To the left of it." if across < 0 else "To the right of it."
    else:
        answer = "Above it." if down < 0 else "Below it."
    return _said(f"Where is the {one.label} from the {other.label}?", answer, "relation", one.label, other.label)


def _exists(scene: Scene, known: Sequence[str], rng: random.Random) -> Asked | None:
    there = {p.label for p in scene.placed}
    label = rng.choice(sorted(there)) if rng.random() < 0.5 else rng.choice(known)
    if label not in there and any(_alike(label, other) for other in there):
        return None
    return _said(f"Is there {article(label)}?", "Yes." if label in there else "No.", "exists", label)


def _list(scene: Scene, rng: random.Random) -> Asked | None:
    labels = [article(label) for label in dict.fromkeys(p.label for p in scene.placed)]
    text = labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
    return _said(
        rng.choice(("What is in the picture?", "Describe the image.")),
        f"{text.capitalize()}.",
        "list",
        *(p.label for p in scene.placed),
    )
