"""What a study has found, in one small file: enough for its tables, kept apart from the models it was found with.

A study's folder holds models and caches, and belongs to one machine. Its records hold what came out of each rollout and
each measure, a line each, under the stage's name. That follows from settings alone, so records can be committed, sent,
and joined (`cat`) where machines without a common disk did some seeds each. What is on record is not done again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embodied_midtrain.artifacts import Artifact, StageError, write_atomic
from embodied_midtrain.benchmarks.rollout import EpisodeResult, read_episodes
from embodied_midtrain.config import ConfigError, structure
from embodied_midtrain.recipes.summarise import machine
from embodied_midtrain.studies.calling import House
from embodied_midtrain.studies.figures import figure
from embodied_midtrain.studies.graph import Plan, Stage

FIELDS = ("task", "episode", "state", "start", "success", "steps")
"""Of an episode, what comparisons need."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one rollout or one measure came to.

    Attributes:
        key: the stage's name.
        label: whose it is, for readers.
        code: the version that found it.
        machine: where, in words.
        episodes: of a rollout, as `FIELDS`.
        figures: of a measure, by where they stood (FILE:KEY.KEY); None where there was no number.
    """

    key: str
    label: str
    code: str = ""
    machine: str = ""
    episodes: list[list[Any]] = field(default_factory=list)
    figures: dict[str, float | None] = field(default_factory=dict)

    def played(self) -> list[EpisodeResult]:
        return [EpisodeResult(**dict(zip(FIELDS, row, strict=True)), instruction="") for row in self.episodes]


def read_records(path: Path) -> dict[str, Found]:
    """By stage; none where there is no such file. Where a stage is there twice, the last counts.

    Raises:
        StageError: on a line that is no record, named.
    """
    if not path.exists():
        return {}
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StageError(f"{path} cannot be read as a study's records: {error}") from error
    found: dict[str, Found] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            one = structure(Found, json.loads(line), "record")
            _check(one)
        except (ConfigError, ValueError, TypeError) as error:
            raise StageError(f"{path}, line {number} is no record of a study ({error}); remove that line") from error
        found[one.key] = one
    return found


def _check(one: Found) -> None:
    """Python counts True as 1 and would take a word for a success: wanted are the types themselves."""
    for e in one.played():
        numbers, words = (e.episode, e.state, e.steps), (e.task, e.start)
        right = all(type(n) is int for n in numbers) and all(type(w) is str for w in words)
        if not right or type(e.success) is not bool:
            raise ValueError(f"an episode is {', '.join(FIELDS)}")
    if not all(value is None or math.isfinite(value) for value in one.figures.values()):
        raise ValueError("a figure is a number or null")


def on_record(plan: Plan, known: Mapping[str, Found]) -> dict[str, Found]:
    """Those that answer for a stage of this plan: not one of a measure that has got another figure since."""
    found = {}
    for cell in plan.cells:
        if cell.rollout is not None and (one := known.get(cell.rollout.key)) is not None and one.episodes:
            found[one.key] = one
    for reading in plan.readings:
        wanted = plan.wanted(reading)
        if wanted and (one := known.get(reading.stage.key)) is not None and wanted <= one.figures.keys():
            found[one.key] = one
    return found


def record(path: Path, house: House, plan: Plan, known: Mapping[str, Found], done: Container[str]) -> int:
    """Add to the file what is done here and not yet on record.

    Args:
        known: what stands in the file, for this plan.
        done: the keys of stages that have run here.

    Returns:
        How many were added.

    Raises:
        DiskFull: as it came; the file is as it was.
    """
    stages = {cell.rollout.key: (cell.rollout, frozenset[str]()) for cell in plan.cells if cell.rollout is not None}
    stages |= {one.stage.key: (one.stage, plan.wanted(one)) for one in plan.readings if plan.wanted(one)}
    new = [
        _found(Artifact.open(house.of(stage)), stage, wanted)
        for key, (stage, wanted) in stages.items()
        if key in done and key not in known
    ]
    if new:
        rows = [json.dumps({k: v for k, v in asdict(one).items() if v}, ensure_ascii=False) for one in new]
        text = path.read_text() if path.exists() else ""
        # A file that somebody cut or edited may end without a new line.
        write_atomic(path, text + ("\n" if text and not text.endswith("\n") else "") + "\n".join(rows) + "\n")
    return len(new)


def _found(artifact: Artifact, stage: Stage, wanted: Iterable[str]) -> Found:
    episodes: list[list[Any]] = []
    if not wanted:
        episodes = [[getattr(e, name) for name in FIELDS] for e in read_episodes(artifact)]
    figures = {where: figure(artifact.path, where) for where in sorted(wanted)}
    return Found(stage.key, stage.label, str(artifact.manifest.get("code", "")), machine(), episodes, figures)
