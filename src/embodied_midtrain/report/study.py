"""The one machine-readable document of a study: STUDY/study.json. Tables and the page are drawn from it.

Shares and rates are in [0, 1]. What is empty or None has not been measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from embodied_midtrain.artifacts import StageError, read_json, write_json
from embodied_midtrain.benchmarks.rollout import TaskResult
from embodied_midtrain.config import ConfigError, structure
from embodied_midtrain.diagnostics.predict import FILE as FIGURES
from embodied_midtrain.report.summary import Provenance, StageTime

STUDY = "study.json"
VariantState = Literal["done", "failed", "waiting", "partly run", "not run"]


@dataclass(frozen=True, slots=True)
class StudyBenchmark:
    name: str
    title: str
    where: str


@dataclass(frozen=True, slots=True)
class StudyVariant:
    """One pathway. `state` is of everything that it needs; partly run: of some seeds, heads or benchmarks; waiting:
    vla-eval has not played all of its policies."""

    name: str
    title: str
    pathway: tuple[str, ...]
    """The stages on its way, in words."""
    state: VariantState
    why: str = ""
    """What failed, or how much of it has run."""
    control: bool = False
    """Its language model starts from random weights: no candidate, but a test of the benchmark."""
    against: str = ""
    """The variant that it is tested against; empty for a baseline."""


@dataclass(frozen=True, slots=True)
class StudyCell:
    """A variant on a benchmark with a head, over its training seeds.

    The interval takes episodes of all seeds as one sample; `by_seed` shows what training itself scatters.
    """

    variant: str
    benchmark: str
    head: str
    all: TaskResult
    tasks: dict[str, TaskResult] = field(default_factory=dict)
    by_seed: dict[str, float] = field(default_factory=dict)
    spread: float | None = None
    """Standard deviation of the shares over seeds; None where there is one."""
    length: float | None = None
    """Mean number of subtasks in a row, where the benchmark counts them (CALVIN)."""


@dataclass(frozen=True, slots=True)
class StudyComparison:
    """A variant against another on the same episodes of the same training seeds."""

    variant: str
    against: str
    benchmark: str
    head: str
    pairs: int
    difference: float
    low: float
    high: float
    p: float
    """McNemar's, of this test alone."""
    p_adjusted: float
    """Holm's, over all tests of the study but those of controls."""
    outcome: Literal["better", "worse", "cannot tell"]
    """With p_adjusted below .05, and an interval that leaves out 0."""
    verdict: str
    by_seed: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StudyFigure:
    """One number of a measure, over training seeds."""

    measure: str
    name: str
    variant: str
    by_seed: dict[str, float]
    mean: float
    benchmark: str = ""
    head: str = ""


@dataclass(frozen=True, slots=True)
class StudyStage:
    """One stage, and the variants that need it."""

    time: StageTime
    stage: str
    label: str
    variants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StudySummary:
    name: str
    about: str = ""
    seed: int = 0
    training_seeds: tuple[int, ...] = ()
    created: str = ""
    machine: str = ""
    state: Literal["done", "partial"] = "done"
    baseline: str = ""
    scale: float = 1.0
    """What every count was multiplied by: below 1, nothing is to be concluded."""
    benchmarks: tuple[StudyBenchmark, ...] = ()
    heads: tuple[str, ...] = ()
    variants: tuple[StudyVariant, ...] = ()
    cells: tuple[StudyCell, ...] = ()
    comparisons: tuple[StudyComparison, ...] = ()
    figures: tuple[StudyFigure, ...] = ()
    stages: tuple[StudyStage, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader has to know of the data: samples that came again, and how often."""
    commands: tuple[str, ...] = ()
    """What is to be played by vla-eval."""
    provenance: Provenance = field(default_factory=Provenance)

    def title(self, variant: str) -> str:
        return next((v.title for v in self.variants if v.name == variant), variant)

    def columns(self) -> list[tuple[str, str, str]]:
        """(benchmark, head, heading) of the table's columns."""
        return [
            (one.name, head, f"{one.title}, {head}" if head else one.title)
            for one in self.benchmarks
            for head in self.heads or ("",)
        ]

    def cell(self, variant: str, benchmark: str, head: str) -> StudyCell | None:
        wanted = (variant, benchmark, head)
        return next((c for c in self.cells if (c.variant, c.benchmark, c.head) == wanted), None)

    def comparison(self, variant: str, benchmark: str, head: str) -> StudyComparison | None:
        wanted = (variant, benchmark, head)
        return next((c for c in self.comparisons if (c.variant, c.benchmark, c.head) == wanted), None)


def save_study(folder: Path, summary: StudySummary) -> Path:
    """Write FOLDER/study.json whole or not at all, and beside it FOLDER/figures.json for `diagnostics.predict`."""
    path = folder / STUDY
    write_json(path, summary)
    write_json(folder / FIGURES, {"variants": figures_by_variant(summary)})
    return path


def figures_by_variant(summary: StudySummary) -> list[dict[str, Any]]:
    """Of each variant that was played: its mean success, and its figures' means, over benchmarks, heads and seeds.

    Controls are left out: nobody chooses between them and the rest, and a random language model has not drifted from
    itself.
    """
    rows = []
    for variant in (one for one in summary.variants if not one.control):
        shares = [cell.all.success for cell in summary.cells if cell.variant == variant.name]
        of: dict[str, list[float]] = {}
        for figure in summary.figures:
            if figure.variant == variant.name:
                of.setdefault(f"{figure.measure}: {figure.name}", []).append(figure.mean)
        if shares:
            figures = {name: fmean(values) for name, values in of.items()}
            rows.append({"name": variant.name, "success": fmean(shares), "figures": figures})
    return rows


def load_study_summary(folder: Path) -> StudySummary:
    """Read FOLDER/study.json.

    Raises:
        StageError: where it is missing or does not fit these types.
    """
    path = folder / STUDY
    if not path.is_file():
        raise StageError(f"{folder} has no {STUDY}: give the folder of a study ('emt study').")
    try:
        return structure(StudySummary, read_json(path), STUDY)
    except ConfigError as error:
        raise StageError(f"{path} does not fit this version:\n{error}\nGive the study's command again.") from error
