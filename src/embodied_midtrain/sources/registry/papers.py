"""Small printed papers - receipts, notices, labels, timetables, business cards - with questions about what they say."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.extras import require
from embodied_midtrain.samples import Sample, question
from embodied_midtrain.sources.registry.images import picture
from embodied_midtrain.sources.registry.source import Group

_QUESTIONS = 2
"""About each paper."""
# The fonts that come with matplotlib: the same on every machine.
_FONTS = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf", "STIXGeneral.ttf", "DejaVuSans-Bold.ttf")
_PAPERS = ("#ffffff", "#fffdf2", "#f4f6f8", "#fbeed9", "#e8f3ea")
_INKS = ("#000000", "#202a44", "#3b2a1a", "#303030")

_GOODS = ("Bread", "Milk", "Apples", "Rice", "Coffee", "Soap", "Cheese", "Tea", "Eggs", "Honey", "Pasta", "Candles")
_SHOPS = ("Corner Store", "Green Market", "Mill Bakery", "Harbour Shop", "Sunny Foods", "Old Town Grocer")
_NAMES = (
    "Anna Berg",
    "Tom Reed",
    "Lucia Marin",
    "Kenji Mori",
    "Amina Diallo",
    "Erik Lund",
    "Priya Nair",
    "Olga Petrova",
)
_JOBS = ("Architect", "Baker", "Engineer", "Gardener", "Librarian", "Nurse", "Photographer", "Teacher")
_STREETS = ("Mill Lane", "Station Road", "Park Street", "River Walk", "Church Square", "Hill Avenue")
_TOWNS = ("Ashford", "Brookfield", "Easton", "Marlow", "Northgate", "Westbury", "Kingsley", "Redhill")
_EVENTS = ("Book Fair", "Street Market", "Open Day", "Choir Concert", "Chess Evening", "Garden Walk", "Film Night")
_PLACES = ("the town hall", "the library", "room 12", "the school yard", "the old mill", "the main square")
_MONTHS = ("January", "March", "April", "June", "July", "September", "October", "December")
_CONTENTS = ("Energy", "Fat", "Sugar", "Protein", "Salt", "Fibre")

Asked = tuple[str, str]


@dataclass(frozen=True)
class Paper:
    """Lines of two columns (the second may be empty), and what can be asked about them."""

    lines: tuple[tuple[str, str], ...]
    asked: tuple[Asked, ...]


def receipt(rng: random.Random) -> Paper:
    shop, goods = rng.choice(_SHOPS), rng.sample(_GOODS, rng.randint(3, 6))
    cents = {item: rng.randint(50, 1999) for item in goods}
    total, dearest = sum(cents.values()), max(cents, key=lambda item: (cents[item], item))
    item = rng.choice(goods)
    lines = [(shop, ""), ("", ""), *((g, _money(cents[g])) for g in goods), ("", ""), ("TOTAL", _money(total))]
    asked = (
        ("What is the total on this receipt?", _money(total)),
        (f"How much did the {item.lower()} cost?", f"{_money(cents[item])}."),
        ("Which shop is the receipt from?", f"{shop}."),
        ("How many articles were bought?", str(len(goods))),
        ("What is the most expensive article?", f"{dearest}."),
        ("List what was bought.", f"{', '.join(goods)}."),
    )
    return Paper(tuple(lines), asked)


def notice(rng: random.Random) -> Paper:
    event, place = rng.choice(_EVENTS), rng.choice(_PLACES)
    date, time = f"{rng.randint(1, 28)} {rng.choice(_MONTHS)}", f"{rng.randint(8, 20)}:{rng.choice(('00', '15', '30'))}"
    phone = f"{rng.randint(100, 999)} {rng.randint(1000, 9999)}"
    lines = (
        (event.upper(), ""),
        ("", ""),
        (f"on {date} at {time}", ""),
        (f"in {place}", ""),
        (f"Questions: {phone}", ""),
    )
    asked = (
        ("Which event does this notice announce?", f"{event}."),
        ("When does it begin?", f"On {date} at {time}."),
        ("Where does it take place?", f"In {place}."),
        ("Which number can be called?", phone),
        ("Read the notice aloud.", " ".join(line for line, _ in lines if line)),
    )
    return Paper(lines, asked)


def card(rng: random.Random) -> Paper:
    name, job, town = rng.choice(_NAMES), rng.choice(_JOBS), rng.choice(_TOWNS)
    street = f"{rng.randint(1, 199)} {rng.choice(_STREETS)}"
    mail = f"{name.lower().replace(' ', '.')}@{town.lower()}.example"
    lines = ((name, ""), (job, ""), ("", ""), (street, ""), (town, ""), (mail, ""))
    asked = (
        ("Whose business card is this?", f"{name}'s."),
        ("What is this person's profession?", f"{job}."),
        ("What is the address on the card?", f"{street}, {town}."),
        ("Which e-mail address is printed?", mail),
    )
    return Paper(lines, asked)


def timetable(rng: random.Random) -> Paper:
    towns, minute, stops = rng.sample(_TOWNS, rng.randint(4, 6)), rng.randint(360, 1200), []
    for town in towns:
        stops.append((town, f"{minute // 60:02d}:{minute % 60:02d}"))
        minute += rng.randint(4, 35)
    line, (town, time) = f"Line {rng.randint(1, 99)}", rng.choice(stops)
    asked = (
        (f"When does it stop at {town}?", f"At {time}."),
        ("Which line is this timetable for?", f"{line}."),
        (f"Where is the stop at {time}?", f"In {town}."),
        ("What is the last stop?", f"{towns[-1]}."),
        ("How many stops are listed?", str(len(towns))),
    )
    return Paper(((line, ""), ("", ""), *stops), asked)


def label(rng: random.Random) -> Paper:
    product, parts = (
        rng.choice([good for good in _GOODS if good not in ("Soap", "Candles")]),
        rng.sample(_CONTENTS, rng.randint(3, 5)),
    )
    grams = {
        part: f"{rng.randint(1, 400) / 10:g} g" if part != "Energy" else f"{rng.randint(80, 2400)} kJ" for part in parts
    }
    part, weight = rng.choice(parts), f"{rng.choice((100, 200, 250, 500, 750))} g"
    rest = [other for other in _CONTENTS if other not in parts]
    asked = (
        (f"How much {part.lower()} does the label state?", grams[part]),
        ("Which product is the label for?", f"{product}."),
        ("What is the net weight?", weight),
        (f"Does the label mention {rest[0].lower()}?", "No."),
        (f"Is {part.lower()} listed on the label?", "Yes."),
    )
    return Paper(((product, ""), (f"net weight {weight}", ""), ("per 100 g", ""), *grams.items()), asked)


_KINDS: tuple[Callable[[random.Random], Paper], ...] = (receipt, notice, card, timetable, label)


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def render(paper: Paper, rng: random.Random) -> Image.Image:
    """The paper, printed in one font, sometimes a little turned on its table.

    Raises:
        StageError: without matplotlib, whose fonts are used.
    """
    size = rng.randint(15, 19)
    font = _font(rng.choice(_FONTS), size)
    wide = max(font.getlength(left) + (font.getlength(right) + 2 * size if right else 0) for left, right in paper.lines)
    margin, step = size, round(size * rng.uniform(1.25, 1.5))
    shape = (round(wide) + 2 * margin, step * len(paper.lines) + 2 * margin)
    colour, ink = rng.choice(_PAPERS), rng.choice(_INKS)
    sheet = Image.new("RGB", shape, colour)
    drawing = ImageDraw.Draw(sheet)
    for number, (left, right) in enumerate(paper.lines):
        height = margin + number * step
        drawing.text((margin, height), left, ink, font)
        if right:
            drawing.text((shape[0] - margin, height), right, ink, font, anchor="ra")
    if rng.random() < 0.4:
        table = rng.choice(("#8a6a48", "#5d6b70", "#c9c2b4", "#3d4a3f"))
        return sheet.rotate(rng.uniform(-6, 6), Image.Resampling.BICUBIC, expand=True, fillcolor=table)
    return sheet


@lru_cache
def _font(name: str, size: int) -> Any:
    folder = Path(require("matplotlib", "pool").get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / name), size, layout_engine=ImageFont.Layout.BASIC)


class Papers:
    """Printed papers drawn with Pillow, with exact answers."""

    name = "document-qa"
    group: Group = "document"
    licence = "CC0-1.0"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        """See `RegistrySource.samples`."""
        for number in range(-(-limit // _QUESTIONS)):
            # One generator a paper: a larger pool begins with the smaller one.
            rng = random.Random(f"{seed}:{self.name}:{number}")
            make = rng.choice(_KINDS)
            paper = make(rng)
            image = picture(render(paper, rng), lossy=False)
            name = f"{make.__name__}-{number:05d}"
            for i, (asked, answered) in enumerate(rng.sample(paper.asked, _QUESTIONS)):
                if number * _QUESTIONS + i < limit:
                    yield question(
                        self.name,
                        f"{name}-{i}",
                        image,
                        asked,
                        answered,
                        licence=self.licence,
                        origin="drawn with Pillow",
                    )
