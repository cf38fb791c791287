"""The one machine-readable document of a recipe run: RUN/summary.json.

A recipe fills it stage by stage; the page and the terminal table are drawn from it and from the files that it
names. Everything but the name has a default, so that a run that was stopped half-way has a summary and a report
too: what is empty or None is shown as "not run", never guessed.

Paths are relative to the run's folder. Shares and rates are in [0, 1]; percentiles are in [0, 100], where 100 is
closest to the target.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from embodied_midtrain.artifacts import StageError, read_json, write_json
from embodied_midtrain.config import ConfigError, structure

SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class StageTime:
    """What one stage cost. `state` is "done", "running", "failed" or "not run"; `note` says what went wrong."""

    name: str
    seconds: float
    peak_memory_bytes: int | None = None
    state: str = "done"
    note: str = ""


@dataclass(frozen=True, slots=True)
class PoolSource:
    """One source of the pool: samples that can be used, and those that were left out, counted by reason."""

    name: str
    samples: int
    group: str = ""
    """Nature of the source, such as "documents" or "embodied": the colour of its marks."""
    licence: str = ""
    skipped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MissingSource:
    """A source that could not be had at all."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class PoolFacts:
    sources: tuple[PoolSource, ...] = ()
    missing: tuple[MissingSource, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetTask:
    name: str
    episodes: int
    frames: int
    instruction: str = ""


@dataclass(frozen=True, slots=True)
class TargetFacts:
    name: str
    episodes: int
    frames: int
    tasks: tuple[TargetTask, ...] = ()


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a chart: `values[i]` at training step `steps[i]`."""

    name: str
    """What is measured, such as "loss", "validation loss" or "validation accuracy"."""
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class EstimatorFacts:
    validation_accuracy: float
    steps: int
    stopped_by: str
    notes: tuple[str, ...] = ()
    """Warnings in words: the rule degenerated (one step), the estimator saturated, ..."""
    curve: Curve | None = None


@dataclass(frozen=True, slots=True)
class SourceProximity:
    """Where a source's samples stand in the ranking of the whole pool (percentiles, 100 is closest)."""

    source: str
    n: int
    median: float
    lower_quartile: float
    upper_quartile: float
    group: str = ""
    within_agreement: float | None = None
    """Spearman correlation between this source's own ranking and the one under the replaced prompt template."""


@dataclass(frozen=True, slots=True)
class ProximityFacts:
    """The ranking, and the ranking with the target's prompt template replaced.

    A ranking that follows the wording of the prompt and not what is seen changes when the template does: then
    `agreement` is low. `agreement_within` asks the same inside each source (mean over samples), where "it is
    another kind of source" cannot help.
    """

    sources: tuple[SourceProximity, ...] = ()
    sources_other_prompt: tuple[SourceProximity, ...] = ()
    prompt: str = ""
    other_prompt: str = ""
    agreement: float | None = None
    agreement_within: float | None = None
    between_sources: float | None = None
    """Share of the variance of ranks that the source alone explains: at 1, nothing is ranked within sources."""


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One rule of the audit: its sentence, and whether it speaks for the ranking ("good"), against it, or neither."""

    rule: str
    state: Literal["good", "bad", "note"]
    sentence: str


@dataclass(frozen=True, slots=True)
class AuditProbe:
    """How well a probe tells pool and target apart from one thing alone: balanced accuracy on held-out rows."""

    name: str
    accuracy: float


@dataclass(frozen=True, slots=True)
class AuditRanking:
    """Rank correlation with the ranking, when one thing is another: the prompt, the seed, the pictures."""

    name: str
    spearman: float
    within: float | None = None
    """The same inside each source."""
    overlap: float | None = None
    """Share of the chosen samples that both choose."""


@dataclass(frozen=True, slots=True)
class AuditLeak:
    """A pool sample that shows a target frame; the hashes of both differ in `bits` of 64."""

    source: str
    id: str
    frame: str
    bits: int


@dataclass(frozen=True, slots=True)
class AuditFacts:
    """Whether the ranking found the robot's world or a shortcut."""

    verdict: str
    """Such as "looks at the scene", "partly a shortcut: image size" or "leaks"."""
    findings: tuple[AuditFinding, ...] = ()
    probes: tuple[AuditProbe, ...] = ()
    rankings: tuple[AuditRanking, ...] = ()
    leaked: int | None = None
    """Pool samples that show a target frame; None where nobody looked."""
    pictures: int = 0
    """Pool pictures that were compared, with so many `frames`."""
    frames: int = 0
    leaks: tuple[AuditLeak, ...] = ()
    """The first of them."""
    not_run: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MmdFacts:
    """Pairwise maximum mean discrepancy; `matrix[i][j]` belongs to `names[i]` and `names[j]`."""

    names: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]
    bandwidth: float | None = None


@dataclass(frozen=True, slots=True)
class DiversityFacts:
    """Spread of features: one figure for pool and target, one for the selection of each variant."""

    pool: float
    target: float
    selections: dict[str, float] = field(default_factory=dict)
    measure: str = ""
    """What the figure is, in a few words."""


@dataclass(frozen=True, slots=True)
class Share:
    """One source's place in a mixture: the share asked for, the one that came out, and repeated samples."""

    source: str
    target: float | None
    realised: float
    samples: int
    repeated: int = 0
    group: str = ""


@dataclass(frozen=True, slots=True)
class SelectionFacts:
    """What one variant is mid-trained on. `table` is a Parquet file with source, id, score, rank columns."""

    variant: str
    selector: str
    size: int
    composition: tuple[Share, ...] = ()
    table: str = ""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two selectors agree: rank correlation, and the share of one's selection that is in the other's too."""

    spearman: float | None
    overlap: float


@dataclass(frozen=True, slots=True)
class SelectorFacts:
    """One way of ranking the pool beside the others.

    Attributes:
        agreement: with each selector, itself included.
        by_chance: share in common that two random selections would have.
        medians: median percentile of each source.
    """

    name: str
    agreement: dict[str, Agreement]
    by_chance: float
    medians: dict[str, float]


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """One training run of a variant (mid-training or policy fine-tuning)."""

    variant: str
    steps: int
    seconds: float
    curves: tuple[Curve, ...] = ()
    method: str = ""
    """Such as "full", "LoRA" or "frozen backbone"."""


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Closed-loop result of one variant on one task, with the ends of its interval."""

    variant: str
    task: str
    successes: int
    episodes: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class VariantResult:
    """A variant over all tasks: mean success with its interval."""

    variant: str
    success: float
    low: float
    high: float
    episodes: int
    title: str = ""
    """For readers, such as "mid-trained on selected"."""
    by_seed: tuple[float, ...] = ()
    """Success with each training seed, where there are several; the interval is that of all episodes together."""
    length: float | None = None
    """Mean number of subtasks done in a row, where the benchmark counts them (CALVIN's average length)."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`variant` minus `baseline` in mean success; `verdict` is the sentence that a reader gets.

    `kind` "initialisation" marks a comparison in which `baseline` starts from a random language model: only where
    that one is beaten ("better") can this benchmark tell initialisations apart at all. `outcome` is "better" or
    "worse" where the difference is more than noise, after all tests of the run.
    """

    variant: str
    baseline: str
    difference: float
    low: float
    high: float
    p: float
    """McNemar's, of this test alone."""
    verdict: str
    outcome: Literal["better", "worse", "cannot tell"] = "cannot tell"
    kind: Literal["variant", "initialisation"] = "variant"
    p_adjusted: float | None = None
    """Holm's, over all comparisons of the run but those of controls; None for these."""
    by_seed: tuple[float, ...] = ()
    """The difference with each training seed, where there are several."""


@dataclass(frozen=True, slots=True)
class Video:
    """One recorded rollout."""

    path: str
    variant: str
    task: str
    success: bool
    episode: int = 0


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """What one benchmark of several has shown; empty where it is not played yet."""

    name: str
    title: str = ""
    where: str = ""
    """Where it is played, such as "vla-eval, calvin-abc-d"."""
    waiting: tuple[str, ...] = ()
    """Policies that it has not been played with yet."""
    commands: tuple[str, ...] = ()
    """What plays it with them, where the recipe does not do so by itself."""
    rollouts: tuple[Rollouts, ...] = ()
    variants: tuple[VariantResult, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    videos: tuple[Video, ...] = ()


@dataclass(frozen=True, slots=True)
class Files:
    """Where things lie, relative to the run unless said otherwise. An empty text: not made."""

    pool: str = ""
    """Pool that gallery images are read from: an artifact, or the user's own conversation file (by its full path)."""
    images: str = ""
    """Folder that image paths in a conversation file start from, by its full path."""
    map: str = ""
    """Parquet with kind ("pool" or "target"), source, x, y: the map of 'emt gap'."""
    scores: str = ""
    """Parquet with source, id, score of every pool sample: the scores of 'emt select' by the estimator."""
    artifacts: dict[str, str] = field(default_factory=dict)
    """Every stage's artifact folder by stage name, for the provenance table."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What would be needed to make this run again."""

    code: str = ""
    python: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    backbone: str = ""
    recipe: str = ""
    """The recipe as it ran, as YAML."""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """A whole recipe run."""

    name: str
    seed: int = 0
    created: str = ""
    """When the run was finished, ISO 8601, UTC."""
    machine: str = ""
    state: Literal["done", "partial"] = "done"
    benchmark: str = ""
    """Where rollouts happen, such as "Meta-World (MT, 5 tasks)"."""
    stages: tuple[StageTime, ...] = ()
    pool: PoolFacts | None = None
    target: TargetFacts | None = None
    estimator: EstimatorFacts | None = None
    proximity: ProximityFacts | None = None
    audit: AuditFacts | None = None
    mmd: MmdFacts | None = None
    diversity: DiversityFacts | None = None
    selections: tuple[SelectionFacts, ...] = ()
    selectors: tuple[SelectorFacts, ...] = ()
    """All rankings of the pool, the estimator's first."""
    midtrain: tuple[TrainingFacts, ...] = ()
    policies: tuple[TrainingFacts, ...] = ()
    rollouts: tuple[Rollouts, ...] = ()
    variants: tuple[VariantResult, ...] = ()
    """In the order in which they are to be shown; the first is the reference (off the shelf)."""
    comparisons: tuple[Comparison, ...] = ()
    videos: tuple[Video, ...] = ()
    benchmarks: tuple[BenchmarkResult, ...] = ()
    """Where a recipe has several robots: the results of each. The fields above are then empty: success on one is not
    to be added to success on another."""
    scale: float = 1.0
    """What every count of the recipe was multiplied by: below 1 it was checked from end to end, and nothing is to be
    concluded."""
    faults: tuple[str, ...] = ()
    """Anything else that went wrong or was left out, in words."""
    files: Files = field(default_factory=Files)
    provenance: Provenance = field(default_factory=Provenance)


def save_summary(run: Path, summary: Summary) -> Path:
    """Write RUN/summary.json whole or not at all."""
    path = run / SUMMARY
    write_json(path, summary)
    return path


def load_summary(run: Path) -> Summary:
    """Read RUN/summary.json.

    Raises:
        StageError: where it is missing or does not fit these types; the message names the key.
    """
    path = run / SUMMARY
    if not path.is_file():
        raise StageError(f"{run} has no {SUMMARY}: give the folder of a recipe run ('emt run' or 'emt quickstart').")
    try:
        return structure(Summary, read_json(path), SUMMARY)
    except ConfigError as error:
        raise StageError(f"{path} does not fit this version:\n{error}\nGive the recipe's command again.") from error
