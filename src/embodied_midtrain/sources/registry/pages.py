"""Pages of printed documents with their exact text: the manuals in Debian's texlive-humanities-doc."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.extras import require
from embodied_midtrain.samples import Sample, question
from embodied_midtrain.sources.registry.fetch import debian
from embodied_midtrain.sources.registry.images import LONGEST_SIDE, picture
from embodied_midtrain.sources.registry.source import Group

_FEWEST_LINES, _MOST_LINES = 2, 5
_READ_BAND = (
    "Read the text in the image.",
    "What is written here?",
    "Transcribe this passage.",
    "Copy out the text of this part of a page.",
)
_READ_PAGE = (
    "How does this page begin?",
    "Read the first words of the page.",
    "What are the first words on this page?",
)


@dataclass(frozen=True)
class _Line:
    bottom: float
    top: float
    left: float
    right: float


class Pages:
    """Whole pages and bands of a few lines, with what is written on them."""

    name = "document-pages"
    group: Group = "document"
    licence = "free documentation, mostly LPPL-1.3c"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        """See `RegistrySource.samples`."""
        pdfium = require("pypdfium2", "pool")
        package = debian("texlive-humanities-doc", cache)
        rng = random.Random(f"{seed}:{self.name}")
        members = package.names("*.pdf")
        # Every document in turn, so that a long manual does not fill the source.
        each = 3 + 3 * limit // max(1, len(members))
        made = 0
        for member in rng.sample(members, len(members)):
            try:
                document = pdfium.PdfDocument(package.read(member))
            except pdfium.PdfiumError as error:
                skips.add("broken document", member, str(error))
                continue
            for number in sorted(rng.sample(range(len(document)), min(each, len(document)))):
                if made == limit:
                    return
                found = _from_page(document[number], rng)
                if found is None:
                    skips.add("page without plain text", f"{member} page {number + 1}")
                    continue
                made += 1
                image, asked, answered = found
                name = f"{member.split('/texlive-doc/')[-1].removesuffix('.pdf')}/{number + 1}"
                yield question(
                    self.name,
                    name,
                    picture(image, lossy=False),
                    asked,
                    answered,
                    licence=self.licence,
                    origin=f"{package.origin(member)} page {number + 1}",
                )


def _from_page(page: Any, rng: random.Random) -> tuple[Image.Image, str, str] | None:
    """A picture of the page or of a band of it, a question and the exact answer; None where there is no clean text."""
    width, height = page.get_size()
    text = page.get_textpage()
    lines = _lines(text)
    if len(lines) < _FEWEST_LINES:
        return None
    if rng.random() < 0.3:
        words = _clean(text.get_text_bounded())
        if words is None:
            return None
        image = page.render(scale=LONGEST_SIDE / max(width, height), grayscale=True).to_pil()
        return image, rng.choice(_READ_PAGE), " ".join(words.split()[:12])
    count = rng.randint(_FEWEST_LINES, min(_MOST_LINES, len(lines)))
    first = rng.randrange(len(lines) - count + 1)
    band = lines[first : first + count]
    left, right = min(line.left for line in band), max(line.right for line in band)
    bottom, top = band[-1].bottom, band[0].top
    words = _clean(text.get_text_bounded(left - 1, bottom - 1, right + 1, top + 1))
    if words is None:
        return None
    edge = 2.0
    crop = (
        max(0.0, left - edge),
        max(0.0, bottom - edge),
        max(0.0, width - right - edge),
        max(0.0, height - top - edge),
    )
    scale = min(3.0, LONGEST_SIDE / max(right - left + 2 * edge, top - bottom + 2 * edge))
    image = page.render(scale=scale, crop=crop, grayscale=True).to_pil()
    return _not_too_thin(image), rng.choice(_READ_BAND), words


def _not_too_thin(image: Image.Image) -> Image.Image:
    """On white paper at least a third as high as wide: backbones stretch images to a square."""
    paper = Image.new("L", (image.width, max(image.height, image.width // 3)), 255)
    paper.paste(image, (0, (paper.height - image.height) // 2))
    return paper


def _lines(text: Any) -> list[_Line]:
    """Lines of text from top to bottom; rectangles that overlap in height are one line."""
    boxes = sorted((text.get_rect(i) for i in range(text.count_rects())), key=lambda box: -box[3])
    lines: list[_Line] = []
    for left, bottom, right, top in boxes:
        if lines and (bottom + top) / 2 > lines[-1].bottom:
            last = lines[-1]
            lines[-1] = _Line(
                min(last.bottom, bottom), max(last.top, top), min(last.left, left), max(last.right, right)
            )
        else:
            lines.append(_Line(bottom, top, left, right))
    return lines


def _clean(text: str) -> str | None:
    """The text on one line, words that were divided at a line's end joined; None where characters have no Unicode
    meaning (as in old symbol fonts), so that the truth would not be exact."""
    joined = re.sub(r"(\w)[\ufffe\u00ad]\s*", r"\1", text)
    plain = " ".join(joined.split())
    if len(plain) < 20 or re.search(r"[\x00-\x1f\x7f-\x9f\ue000-\uf8ff\ufffd-\uffff]", plain):
        return None
    letters = sum(character.isalpha() or character == " " for character in plain)
    return plain if letters > 0.7 * len(plain) else None
