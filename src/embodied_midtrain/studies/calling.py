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
from embodied_midtrain.coupled.measured import MeasuredConfig
from embodied_midtrain.coupled.opening import Traces
from embodied_midtrain.policies.joint import ImageText
from embodied_midtrain.policies.policy import Policy
from embodied_midtrain.robots.balanced import BalancedRobots
from embodied_midtrain.samples import Pool
from embodied_midtrain.sources.places import absolute
from embodied_midtrain.studies.graph import Base, Given, Source, Stage
from embodied_midtrain.studies.stages import CACHES, MODELS, OPENERS, Kind, Lying, Slot, kind_of

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

    def lying(self, source: Given | Stage, skips: Skips, state: str | None = None) -> Lying:
        """What it is opened from; `state`: what a stage wants to read of robot data."""
        if isinstance(source, Stage):
            return Lying(self.place(source), skips, state=state)
        return Lying(
            self.place(source),
            skips,
            images=source.images and self.folder / source.images,
            camera=source.camera,
            split=source.split,
            measured=source.measured or MeasuredConfig(),
            calibration=source.calibration and self.folder / source.calibration,
            state=state,
        )


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
    except (StageError, ValueError):
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
        try:
            house.prints[known] = _print(house, given, kind)
        except (StageError, ValueError) as error:
            hint = f" To be had: {given.home}" if given.home else ""
            raise StageError(f"data.{given.name}: {error}{hint}") from error
    return house.prints[known]


def _print(house: House, given: Given, kind: type) -> str:
    """Of what it is opened as; of a path, of the pool there. Models are told by their files."""
    kind = Pool if kind in (Path, ImageText) else kind
    lying = house.lying(given, Skips())
    # A dataclass has its fields on instances only.
    if kind is Traces or (kind is not Backbone and hasattr(kind, "fingerprint")):
        found = OPENERS[kind](lying).fingerprint
        return str(found() if callable(found) else found)
    if not Path(lying.place).is_dir():
        raise StageError(f"there is no folder {lying.place}")
    return _stamps(Path(lying.place))


def call(house: House, stage: Stage) -> Artifact:
    """Do a stage, or go on with it.

    Raises:
        StageError, ValueError: as the stage's function does.
    """
    kind = kind_of(stage.name)
    arguments = _Opener(house, kind, getattr(stage.config, "state", None)).arguments(stage)
    made = kind.function(house.of(stage), **arguments)
    write_json(made.path / LOGS / MADE_FROM, _identities(house, stage))
    return made


def _together(slot: Slot, several: Mapping[str, Any]) -> Any:
    if slot.many is None:
        # Several robots where one is wanted: drawn from in balance.
        return BalancedRobots(several, episodes=None, seed=0)
    return list(several.values()) if slot.many is Sequence else several


class _Opener:
    """`state`: what the stage wants to read of robot data."""

    def __init__(self, house: House, kind: Kind, state: str | None) -> None:
        self._house, self._kind, self._state, self._skips = house, kind, state, Skips()

    def arguments(self, stage: Stage) -> dict[str, Any]:
        kind = self._kind
        values: dict[str, Any] = {"config": stage.config}
        for slot, given in stage.inputs.items():
            if slot == "backbone" and "start" in stage.inputs and kind.slots["start"].kind is Policy:
                # Read once: it is the policy's own.
                continue
            if isinstance(given, Mapping):
                several = {name: self._open(kind.slots[slot].kind, one) for name, one in given.items()}
                values[slot] = _together(kind.slots[slot], several)
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
            given = {name: one for name, one in pools.items() if isinstance(one, Given)}
            folders = {name: self._house.lying(one, self._skips).images for name, one in given.items()}
            return {name: folder for name, folder in folders.items() if folder is not None}
        pool = stage.inputs.get("pool")
        return self._house.lying(pool, self._skips).images if isinstance(pool, Given) else None

    def _open(self, kind: type, source: Source) -> Any:
        if isinstance(source, Base):
            if kind is Backbone:
                return load_backbone(source.name, random_language=source.random_language)
            if kind is str and source.random_language is None:
                return source.name
            raise StageError(f"stage {self._kind.name} wants a folder where it is given the backbone {source.key}")
        if kind is Backbone:
            return load_backbone(self._model(source))
        if kind is str:
            return self._model(source)
        return OPENERS[kind](self._house.lying(source, self._skips, self._state))

    def _model(self, source: Given | Stage) -> str:
        place = self._house.place(source)
        if isinstance(source, Given):
            return place
        if source.name not in MODELS:
            raise StageError(f"stage {source.name} ({source.label}) makes no model; {' and '.join(MODELS)} do")
        return str(Path(place) / MODELS[source.name])
