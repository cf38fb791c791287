"""Pictures with captions out of HTML handbooks: charts of Debian's python-scipy-doc, screenshots of gimp-help-en.

Read by pattern rather than parsed: each handbook is written by one tool, and parsing thousands of pages takes minutes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Protocol

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.samples import BadSample, Sample, caption
from embodied_midtrain.sources.registry.fetch import debian
from embodied_midtrain.sources.registry.images import reencode
from embodied_midtrain.sources.registry.package import Package
from embodied_midtrain.sources.registry.source import Group

_LONGEST_CAPTION = 300


@dataclass(frozen=True)
class Figure:
    """A picture of a handbook and what is said of it."""

    member: str
    text: str


def _plain(html: str) -> str:
    """Text without tags, at most `_LONGEST_CAPTION` characters, cut at the end of a sentence or word."""
    text = " ".join(unescape(re.sub(r"<[^>]*>", "", html)).replace("¶", "").split())
    text = re.sub(r"[“”]\s*([^“”]*?)\s*[“”]", r"“\1”", text)
    if len(text) <= _LONGEST_CAPTION:
        return text
    head = text[:_LONGEST_CAPTION]
    return head[: head.rfind(". ") + 1] or head[: head.rfind(" ")] + " ..."


def scipy_figures(package: Package) -> Iterator[Figure]:
    """Each plot of the reference with the function's name, its summary, and the sentence before the plot."""
    seen: set[str] = set()
    for page in package.names("*/html/reference/generated/*.html"):
        html = package.read(page).decode("utf-8", "replace")
        title = re.search(r"<h1>(.*?)<a", html, re.DOTALL)
        summary = re.search(r"<dd><p>(.*?)</p>", html, re.DOTALL)
        if not title or not summary:
            continue
        for found in re.finditer(r'<img alt="[^"]*" class="plot-directive" src="[./]*(_images/[^"]+\.png)"', html):
            member = f"{page.split('/reference/')[0]}/{found.group(1)}"
            if member in seen or member not in package:
                continue
            seen.add(member)
            before = html[max(0, found.start() - 3000) : found.start()]
            # A paragraph between the code and the plot speaks of the plot.
            spoken = re.findall(r"<p>((?:(?!<p>|</p>).)*)</p>", before.rsplit("</pre>", 1)[-1], re.DOTALL)
            about = f" {_plain(spoken[-1])}" if spoken else ""
            yield Figure(member, f"{_plain(title.group(1))}: {_plain(summary.group(1))}{about}")


_GIMP_TOKEN = re.compile(
    r'<p class="title">(?P<title>.*?)</p>|<img[^>]*src="(?P<src>images/[^"]+)"[^>]*>'
    r'|<div class="caption">(?P<caption>.*?)</div>|(?P<end><br class="figure-break")',
    re.DOTALL,
)


def gimp_figures(package: Package) -> Iterator[Figure]:
    """Each figure with the title above it and the caption below; icons, which have neither, are left out."""
    seen: set[str] = set()
    for page in package.names("*/help/en/*.html"):
        html = package.read(page).decode("utf-8", "replace")
        heading, title = re.search(r"<title>(.*?)</title>", html, re.DOTALL), ""
        place = re.sub(r"^[\d.]+\s*", "", _plain(heading.group(1))) if heading else ""
        tokens = list(_GIMP_TOKEN.finditer(html))
        for token, after in zip(tokens, [*tokens[1:], None], strict=True):
            if token["title"] is not None:
                title = re.sub(r"^(Figure|Table|Example) [\d.]+\s*", "", _plain(token["title"]))
            elif token["end"]:
                title = ""
            elif token["src"]:
                member = f"{page.rsplit('/', 1)[0]}/{token['src']}"
                said = _plain(after["caption"]) if after is not None and after["caption"] else ""
                text = ". ".join(part.rstrip(". ") for part in (title, said) if part)
                if text and member in package and member not in seen:
                    seen.add(member)
                    yield Figure(
                        member, f"{text} ({place})." if place and place.lower() not in text.lower() else f"{text}."
                    )


class _Figures(Protocol):
    def __call__(self, package: Package) -> Iterator[Figure]: ...


def _samples(
    source: str,
    package: Package,
    figures: _Figures,
    prompts: Sequence[str],
    licence: str,
    limit: int,
    seed: int,
    skips: Skips,
) -> Iterator[Sample]:
    rng = random.Random(f"{seed}:{source}")
    found = list(figures(package))
    rng.shuffle(found)
    made = 0
    for figure in found:
        if made == limit:
            return
        prompt = rng.choice(prompts)
        try:
            image = reencode(package.read(figure.member), lossy=False)
        except BadSample as error:
            skips.add(error.reason, figure.member, error.detail)
            continue
        made += 1
        name = figure.member.split("/images/")[-1].split("/_images/")[-1].rsplit(".", 1)[0]
        origin = package.origin(figure.member)
        yield caption(source, name, image, figure.text, prompt=prompt, licence=licence, origin=origin)


class ScipyPlots:
    """Plots of a scientific library, with what they illustrate."""

    name = "scipy-doc"
    group: Group = "chart"
    licence = "BSD-3-Clause"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        """See `RegistrySource.samples`."""
        prompts = (
            "What does this plot illustrate?",
            "Describe the chart.",
            "Which function is demonstrated by this figure?",
            "Write a caption for this figure of a scientific handbook.",
        )
        package = debian("python-scipy-doc", cache)
        return _samples(self.name, package, scipy_figures, prompts, self.licence, limit, seed, skips)


class GimpScreens:
    """Screenshots and worked examples of an image editor's handbook."""

    name = "gimp-help"
    group: Group = "screen"
    licence = "GFDL-1.2-or-later"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        """See `RegistrySource.samples`."""
        prompts = (
            "What does this screenshot show?",
            "Describe this part of the user interface.",
            "What is being demonstrated here?",
            "Caption this figure of an image editor's handbook.",
            "Which dialog, tool or effect can be seen?",
        )
        package = debian("gimp-help-en", cache)
        return _samples(self.name, package, gimp_figures, prompts, self.licence, limit, seed, skips)
