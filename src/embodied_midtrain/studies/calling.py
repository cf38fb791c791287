"""Doing one stage of a study: its inputs opened, its function called, its cost noted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embodied_midtrain.artifacts import (
    LOGS,
    MANIFEST,
    Artifact,
    Skips,
    StageError,
    fingerprint_of,
    read_json,
    write_json,
)
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.benchmarks.protocol import Actor
from embodied_midtrain.episodes import Robots
from embodied_midtrain.policies.joint import ImageText
from embodied_midtrain.policies.opening import load_actor
from embodied_midtrain.policies.policy import Policy
from embodied_midtrain.robots.opening import open_robots
from embodied_midtrain.samples import Pool
from embodied_midtrain.sources.opening import open_pool
from embodied_midtrain.sources.places import absolute
from embodied_midtrain.studies.plan import Base, Given, Source, Stage
from embodied_midtrain.studies.stages import CACHES, MODELS, Kind, kind_of

MADE_FROM = "study.json"
"""In a stage's logs: what its inputs were when it was done."""


@dataclass(frozen=True)
class House:
    """Where a study's folders are.

    Attributes:
        out: the study's own.
        folder: what paths of given data start from.
    """

    out: Path
    folder: Path
    prints: dict[tuple[str, str], str] = field(default_factory=dict, compare=False)
    """Fingerprints of given data that were looked at."""

    def of(self, stage: Stage) -> Path:
        return self.out / "stages" / stage.key

    def vla_eval(self, cell: str) -> Path:
        """Config, commands and results of vla-eval: no artifact, for others write into it."""
        return self.out / "vla-eval" / cell

    def times(self, stage: Stage) -> Path:
        return self.out / "times" / stage.key

    def place(self, source: Given | Stage) -> str:
        return str(self.of(source)) if isinstance(source, Stage) else absolute(source.path, self.folder)


def is_done(house: House, stage: Stage) -> bool:
    """Whether a stage is done, of these settings and of inputs as they are now.

    Nothing is loaded for it; where it says no, the stage's own function decides.
    """
    folder = house.of(stage)
    if not (folder / MANIFEST).is_file() or not (folder / LOGS / MADE_FROM).is_file():
        return False
    if read_json(folder / MANIFEST).get("status") != "done":
        return False
    try:
        return bool(read_json(folder / LOGS / MADE_FROM) == _identities(house, stage))
    except StageError:
        return False


def _identities(house: House, stage: Stage) -> dict[str, str]:
    slots = kind_of(stage.name).slots
    return {
        f"{slot} {name}".strip(): _identity(house, one, slots[slot].kind)
        for slot, given in stage.inputs.items()
        for name, one in (given if isinstance(given, Mapping) else {"": given}).items()
    }


def _identity(house: House, source: Source, kind: type) -> str:
    """Changes whenever what is there may have changed, without reading much of it."""
    if isinstance(source, Stage):
        return Artifact.open(house.of(source)).fingerprint
    if isinstance(source, Given):
        return print_of(house, source, kind)
    return f"{source.key} {_stamps(Path(source.name))}"


def _stamps(folder: Path) -> str:
    files = sorted(folder.glob("*")) if folder.is_dir() else []
    return fingerprint_of([[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files])


def print_of(house: House, given: Given, kind: type) -> str:
    """The fingerprint of given data that are opened as that type.

    Raises:
        StageError: where they cannot be read; the message says where they are to be had.
    """
    known = (given.key, kind.__name__)
    if known not in house.prints:
        place = house.place(given)
        try:
            house.prints[known] = _print(place, given, kind)
        except StageError as error:
            hint = f" To be had: {given.home}" if given.home else ""
            raise StageError(f"data.{given.name}: {error}{hint}") from error
    return house.prints[known]


def _print(place: str, given: Given, kind: type) -> str:
    if kind is Artifact:
        return Artifact.open(place).fingerprint
    if kind is Robots:
        return open_robots(place, Skips(), camera=given.camera, split=given.split).fingerprint()
    if kind in (Pool, ImageText, Path):
        return open_pool(place, images=given.images, skips=Skips()).fingerprint()
    if not Path(place).is_dir():
        raise StageError(f"there is no folder {place}")
    return _stamps(Path(place))


def call(house: House, stage: Stage) -> Artifact:
    """Do a stage, or go on with it.

    Raises:
        StageError, ValueError: as the stage's function does.
    """
    kind = kind_of(stage.name)
    arguments = _Opener(house, kind).arguments(stage)
    made = kind.function(house.of(stage), **arguments)
    write_json(made.path / LOGS / MADE_FROM, _identities(house, stage))
    return made


class _Opener:
    def __init__(self, house: House, kind: Kind) -> None:
        self._house, self._kind, self._skips = house, kind, Skips()

    def arguments(self, stage: Stage) -> dict[str, Any]:
        kind = self._kind
        values: dict[str, Any] = {"config": stage.config}
        for slot, given in stage.inputs.items():
            if slot == "backbone" and "start" in stage.inputs and kind.slots["start"].kind is Policy:
                # Read once: it is the policy's own.
                continue
            if isinstance(given, Mapping):
                several = {name: self._open(kind.slots[slot].kind, one) for name, one in given.items()}
                values[slot] = list(several.values()) if kind.slots[slot].many is Sequence else several
            else:
                values[slot] = self._open(kind.slots[slot].kind, given)
        if isinstance(start := values.get("start"), Policy):
            values["backbone"] = start.backbone
        if "skips" in kind.takes:
            values["skips"] = self._skips
        if "images" in kind.takes and "images" not in values:
            values["images"] = self._images(stage)
        if stage.name in CACHES:
            values["cache"] = self._house.out / "cache"
        return values

    def _images(self, stage: Stage) -> Any:
        pools = stage.inputs.get("pools")
        if isinstance(pools, Mapping):
            return {name: one.images for name, one in pools.items() if isinstance(one, Given) and one.images}
        pool = stage.inputs.get("pool")
        return pool.images if isinstance(pool, Given) else None

    def _open(self, kind: type, source: Source) -> Any:
        if isinstance(source, Base):
            if kind is Backbone:
                return load_backbone(source.name, random_language=source.random_language)
            if kind is str and source.random_language is None:
                return source.name
            raise StageError(f"stage {self._kind.name} wants a folder where it is given the backbone {source.key}")
        place = self._house.place(source)
        if kind is Backbone:
            return load_backbone(self._model(source))
        if kind in (Policy, Actor):
            return load_actor(place)
        if kind is Artifact:
            return Artifact.open(place)
        if kind is Path:
            return place
        if kind is str:
            return self._model(source)
        given = source if isinstance(source, Given) else Given("", place)
        if kind is Robots:
            return open_robots(place, self._skips, camera=given.camera, split=given.split)
        if kind is ImageText:
            return ImageText(place, images=given.images)
        return open_pool(place, images=given.images, skips=self._skips)

    def _model(self, source: Given | Stage) -> str:
        place = self._house.place(source)
        if isinstance(source, Given):
            return place
        if source.name not in MODELS:
            raise StageError(f"stage {source.name} ({source.label}) makes no model; {' and '.join(MODELS)} do")
        return str(Path(place) / MODELS[source.name])
