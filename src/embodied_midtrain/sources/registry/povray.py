"""Ray-traced scenes and textures, named by file and folder: Debian's povray-examples."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.samples import BadSample, Sample, caption
from embodied_midtrain.sources.registry.fetch import debian
from embodied_midtrain.sources.registry.images import reencode
from embodied_midtrain.sources.registry.source import Group

_PROMPTS = (
    "Describe the rendered scene.",
    "What was ray-traced here?",
    "What does this rendering show?",
    "Name the shape or material in this computer graphic.",
)
_MOST_OF_A_FOLDER = 60
"""There are hundreds of pavements, all alike."""
_FOLDERS_OF_NO_USE = {"templates", "previews", "textures materials"}


class Povray:
    """Computer graphics with what they demonstrate."""

    name = "povray"
    group: Group = "render"
    licence = "CC-BY-3.0 or CC-BY-SA-3.0"

    def samples(self, cache: Path, limit: int, seed: int, skips: Skips) -> Iterator[Sample]:
        """See `RegistrySource.samples`."""
        package = debian("povray-examples", cache)
        rng = random.Random(f"{seed}:{self.name}")
        members = [name for name in package.names("*/examples/*.jpg") if "/portfolio/" not in name]
        rng.shuffle(members)
        made: Counter[str] = Counter()
        for member in members:
            folder = member.rsplit("/", 1)[0]
            if made.total() == limit:
                return
            if made[folder] == _MOST_OF_A_FOLDER:
                continue
            name = member.split("/examples/", 1)[1].rsplit(".", 1)[0]
            *folders, title = [_words(part) for part in name.split("/")]
            kinds = [folder for folder in folders if folder not in _FOLDERS_OF_NO_USE]
            prompt = rng.choice(_PROMPTS)
            said = rng.choice(("A ray-traced picture of {}", "Computer graphics: {}", "A rendering: {}"))
            text = said.format(title or "a scene") + (f" ({', '.join(kinds)})." if kinds else ".")
            try:
                image = reencode(package.read(member))
            except BadSample as error:
                skips.add(error.reason, f"{self.name}/{name}", error.detail)
                continue
            made[folder] += 1
            origin = package.origin(member)
            yield caption(self.name, name, image, text, prompt=prompt, licence=self.licence, origin=origin)


def _words(part: str) -> str:
    """ "36_T_Wood20" -> "wood", "pavement_s4_t6_p31" -> "pavement"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z0-9])|[_\W]+", " ", re.sub(r"^[\dA-Z]{1,3}_", "", part))
    return " ".join(word for word in spaced.lower().split() if len(word) > 1 and not word.isdigit() and word != "inc")
