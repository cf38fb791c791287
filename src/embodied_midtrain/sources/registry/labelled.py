"""Pictures with a label or title: what openclipart, tuxpaint and gcompris have in common.

The compact backbone's training and the default pool read the same items; `split.owner` says which is whose.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.samples import BadSample, Sample, caption
from embodied_midtrain.sources.registry.images import reencode
from embodied_midtrain.sources.registry.package import Package
from embodied_midtrain.sources.registry.split import owner


@dataclass(frozen=True)
class Item:
    """One labelled picture in a package.

    Attributes:
        name: what `split.owner` is asked about; unique within the source.
        member: the image file in the package.
        label: a few words that name what is seen, such as "polar bear".
        words: further keywords, from general to special; may be empty.
        package: where `member` is read from.
    """

    name: str
    member: str
    label: str
    words: tuple[str, ...]
    package: Package
    read: Callable[[], bytes]
    """The encoded image, RGBA where the picture has a transparent ground."""


PROMPTS = (
    "Describe the image.",
    "What does this picture show?",
    "What can be seen here?",
    "Give this image a short caption.",
    "Write a caption for the picture.",
    "What is this?",
)


def article(label: str) -> str:
    """The label with "a" or "an" before it: "an apple"."""
    return f"{'an' if label[:1].lower() in 'aeiou' else 'a'} {label}"


def pool_samples(
    source: str,
    items: Iterable[Item],
    limit: int,
    seed: int,
    skips: Skips,
    *,
    licence: str,
    say: Callable[[Item, random.Random], str],
    prompts: Sequence[str] = PROMPTS,
    lossy: bool = True,
) -> Iterator[Sample]:
    """Captioned samples of those items that belong to the pool, drawn by `seed`.

    Args:
        say: the caption of an item.
    """
    owned = sorted((item for item in items if owner(source, item.name) == "pool"), key=lambda item: item.name)
    rng = random.Random(f"{seed}:{source}")
    rng.shuffle(owned)
    made = 0
    for item in owned:
        if made >= limit:
            return
        prompt, text = rng.choice(prompts), say(item, rng)
        try:
            image = reencode(item.read(), lossy=lossy)
        except BadSample as error:
            skips.add(error.reason, f"{source}/{item.name}", error.detail)
            continue
        made += 1
        origin = item.package.origin(item.member)
        yield caption(source, item.name, image, text, prompt=prompt, licence=licence, origin=origin)
