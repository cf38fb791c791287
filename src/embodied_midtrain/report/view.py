"""What the templates draw: a summary and its files as plain values, with every missing part marked as missing."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.report.answer import Answer, answer, title_of
from embodied_midtrain.report.charts import (
    Cloud,
    Histogram,
    LineChart,
    clouds,
    histogram,
    line_chart,
    log_odds,
    violin,
)
from embodied_midtrain.report.clips import Clips, clips
from embodied_midtrain.report.gallery import Reader, Shelf, readable, shelves
from embodied_midtrain.report.summary import Comparison, Curve, Rollouts, SourceProximity, Summary, TrainingFacts
from embodied_midtrain.report.tables import Key, Scores, Unreadable, read_keys, read_scores, read_table, to_csv
from embodied_midtrain.samples import Sample

T = TypeVar("T")

COLOURS = 8
"""Hues in the style sheet for groups of sources; more groups begin again."""
CSV_ROWS = 20_000


@dataclass(frozen=True)
class Limits:
    """How much of a run the page holds."""

    overall: int = 12
    """Gallery: samples at each end of the whole ranking."""
    per_source: int = 6
    """Gallery: samples at each end of a source's own ranking."""
    image_side: int = 224
    """Gallery: longest side of an image, pixels."""
    video_megabytes: float = 4.0
    """All videos together."""
    rows: int = 300
    """Rows of each selection shown in the page; the download has them all."""


@dataclass(frozen=True)
class Violin:
    facts: SourceProximity
    colour: int
    path: str
    other: SourceProximity | None
    """The same source under the replaced prompt."""


@dataclass(frozen=True)
class Bar:
    """One group's part of a stacked bar, per cent."""

    group: str
    colour: int
    share: float


@dataclass(frozen=True)
class Row:
    rank: int
    source: str
    colour: int
    id: str
    score: float | None
    percentile: float | None
    text: str


@dataclass(frozen=True)
class Chosen:
    """One variant's selection as a table, and all of it as a CSV data URI."""

    variant: str
    title: str
    rows: tuple[Row, ...]
    total: int
    csv: str


@dataclass(frozen=True)
class View:
    summary: Summary
    answer: Answer
    titles: dict[str, str]
    variant_colours: dict[str, int]
    group_colours: dict[str, int]
    source_colours: dict[str, int]
    tasks: tuple[str, ...]
    by_task: dict[str, dict[str, Rollouts]]
    widest: float
    """The largest end of any comparison's interval: the scale of the difference chart."""
    heat: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]
    map: tuple[Cloud, ...]
    violins: tuple[Violin, ...]
    histogram: Histogram | None
    stacks: tuple[tuple[str, tuple[Bar, ...]], ...]
    shelves: tuple[Shelf, ...]
    midtrain: tuple[LineChart, ...]
    policies: tuple[LineChart, ...]
    estimator: LineChart | None
    clips: Clips
    chosen: tuple[Chosen, ...]
    notices: dict[str, str] = field(default_factory=dict)
    """Why a part could not be drawn, by part."""

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        return self.summary.comparisons


class _Builder:
    """Reads the files of one run; a part that fails becomes a notice and its empty value."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.notices: dict[str, str] = {}

    def attempt(self, part: str, make: Callable[[], T], empty: T) -> T:
        try:
            return make()
        except (Unreadable, StageError) as error:
            self.notices[part] = str(error)
            return empty


def build_view(run: Path, summary: Summary, read: Reader | None, limits: Limits) -> View:
    """Everything that the page shows.

    Args:
        read: reads samples of the run's pool; None where there is no pool.
    """
    builder = _Builder(run)
    files = summary.files
    groups = _groups(summary)
    names = sorted({group for group in groups.values() if group})
    group_colours = {name: 1 + i % COLOURS for i, name in enumerate(names)}
    source_colours = {source: group_colours.get(group, 0) for source, group in groups.items()}
    variants = _variant_names(summary)
    colours = {name: i for i, name in enumerate(variants)}
    titles = {name: title_of(summary, name) for name in variants}
    scores = builder.attempt("scores", lambda: read_scores(run, files.scores), None) if files.scores else None
    keys: dict[str, list[Key]] = {
        s.variant: builder.attempt(f"selection of {s.variant}", partial(read_keys, run, s.table), [])
        for s in summary.selections
        if s.table
    }
    return View(
        summary,
        answer(summary),
        titles,
        colours,
        group_colours,
        source_colours,
        tuple(dict.fromkeys(r.task for r in summary.rollouts)),
        {v: {r.task: r for r in summary.rollouts if r.variant == v} for v in variants},
        max([0.05, *(max(abs(c.low), abs(c.high)) for c in summary.comparisons)]),
        _heat(summary),
        builder.attempt("map", lambda: _map(run, files.map), ()) if files.map else (),
        _violins(summary, scores, source_colours),
        _before_after(scores, keys, titles, colours),
        _stacks(summary, groups, group_colours, titles),
        builder.attempt("gallery", partial(_shelves, scores, read, limits), ()),
        _training(summary.midtrain, titles, colours),
        _training(summary.policies, titles, colours),
        _estimator(summary),
        clips(run, summary.videos, most_bytes=int(limits.video_megabytes * 1e6)),
        _all_chosen(builder, keys, titles, scores, read, source_colours, limits.rows),
        builder.notices,
    )


def _groups(summary: Summary) -> dict[str, str]:
    """Group of each source, from wherever the summary says it."""
    found: dict[str, str] = {}
    for part in summary.selections:
        found |= {share.source: share.group for share in part.composition if share.group}
    if summary.proximity:
        found |= {s.source: s.group for s in summary.proximity.sources if s.group}
    if summary.pool:
        found |= {s.name: s.group or found.get(s.name, "") for s in summary.pool.sources}
    return found


def _variant_names(summary: Summary) -> list[str]:
    parts: Iterable[Iterable[str]] = (
        (v.variant for v in summary.variants),
        (v.variant for b in summary.benchmarks for v in b.variants),
        (r.variant for r in summary.rollouts),
        (p.variant for p in summary.policies),
        (m.variant for m in summary.midtrain),
        (s.variant for s in summary.selections),
        (v.variant for v in summary.videos),
    )
    return list(dict.fromkeys(name for part in parts for name in part))


def _heat(summary: Summary) -> tuple[tuple[str, tuple[tuple[float, float], ...]], ...]:
    """Rows of (value, depth of colour in per cent of the largest)."""
    if summary.mmd is None or not summary.mmd.names:
        return ()
    matrix = np.asarray(summary.mmd.matrix, float)
    if matrix.shape != (len(summary.mmd.names),) * 2:
        raise ValueError(f"the MMD matrix is {matrix.shape}, but it has {len(summary.mmd.names)} names")
    top = float(np.nanmax(matrix)) if np.isfinite(matrix).any() else 0.0
    return tuple(
        (name, tuple((float(v), 100 * max(0.0, float(v)) / top if top > 0 and np.isfinite(v) else 0.0) for v in row))
        for name, row in zip(summary.mmd.names, matrix, strict=True)
    )


def _map(run: Path, name: str) -> tuple[Cloud, ...]:
    table = read_table(run, name, ("kind", "source", "x", "y"))
    x, y = (table[c].to_numpy(zero_copy_only=False) for c in ("x", "y"))
    return clouds(x, y, table["source"].to_pylist(), table["kind"].to_pylist())


def _violins(summary: Summary, scores: Scores | None, colours: Mapping[str, int]) -> tuple[Violin, ...]:
    if summary.proximity is None:
        return ()
    others = {s.source: s for s in summary.proximity.sources_other_prompt}
    ranked = sorted(summary.proximity.sources, key=lambda s: (-s.median, s.source))
    return tuple(
        Violin(
            s,
            colours.get(s.source, 0),
            violin(scores.percentile[scores.by_source.get(s.source, [])]) if scores else "",
            others.get(s.source),
        )
        for s in ranked
    )


def _before_after(
    scores: Scores | None, keys: Mapping[str, list[Key]], titles: Mapping[str, str], colours: Mapping[str, int]
) -> Histogram | None:
    """Log-odds of the whole pool and of each selection, where the scores are probabilities."""
    if scores is None or not any(keys.values()):
        return None
    probabilities = bool(scores.scores.min() >= 0 and scores.scores.max() <= 1)
    scale = log_odds(scores.scores) if probabilities else scores.scores
    value = dict(zip(scores.keys, scale.tolist(), strict=True))
    chosen = {titles[v]: np.array([value[k] for k in ks if k in value]) for v, ks in keys.items() if ks}
    return histogram(scale, chosen, {titles[v]: colours[v] for v in keys})


def _stacks(
    summary: Summary, groups: Mapping[str, str], colours: Mapping[str, int], titles: Mapping[str, str]
) -> tuple[tuple[str, tuple[Bar, ...]], ...]:
    """Shares of each group in the pool, and then in each selection."""
    if summary.pool is None or not summary.pool.sources or not summary.selections:
        return ()
    mixtures = [("the whole pool", {s.name: float(s.samples) for s in summary.pool.sources})]
    mixtures += [(titles[s.variant], {c.source: c.realised for c in s.composition}) for s in summary.selections]
    stacks = []
    for name, amounts in mixtures:
        total = sum(amounts.values()) or 1.0
        by_group: dict[str, float] = {}
        for source, amount in amounts.items():
            group = groups.get(source, "") or "other"
            by_group[group] = by_group.get(group, 0.0) + 100 * amount / total
        stacks.append((name, tuple(Bar(g, colours.get(g, 0), share) for g, share in sorted(by_group.items()))))
    return tuple(stacks)


def _shelves(scores: Scores | None, read: Reader | None, limits: Limits) -> tuple[Shelf, ...]:
    if scores is None or read is None:
        return ()
    return shelves(scores, read, overall=limits.overall, per_source=limits.per_source, side=limits.image_side)


def _training(
    runs: Iterable[TrainingFacts], titles: Mapping[str, str], colours: Mapping[str, int]
) -> tuple[LineChart, ...]:
    """One chart for each thing that was measured, all variants over each other."""
    measured: dict[str, list[tuple[str, int, Curve]]] = {}
    for run in runs:
        for curve in run.curves:
            measured.setdefault(curve.name, []).append((titles[run.variant], colours[run.variant], curve))
    charts = (line_chart(name, curves) for name, curves in measured.items())
    return tuple(chart for chart in charts if chart is not None)


def _estimator(summary: Summary) -> LineChart | None:
    curve = summary.estimator.curve if summary.estimator else None
    return line_chart(curve.name, [(curve.name, 2, curve)]) if curve and curve.steps else None


def _all_chosen(
    builder: _Builder,
    keys: Mapping[str, list[Key]],
    titles: Mapping[str, str],
    scores: Scores | None,
    read: Reader | None,
    colours: Mapping[str, int],
    rows: int,
) -> tuple[Chosen, ...]:
    """The selections as tables; without their texts where the pool cannot be read."""
    wanted = [key for chosen in keys.values() for key in chosen[:rows]]
    samples: Mapping[Key, Sample] = builder.attempt("texts", partial(read, wanted), {}) if read and wanted else {}
    place = {key: i for i, key in enumerate(scores.keys)} if scores else {}

    def figures(key: Key) -> tuple[float | None, float | None]:
        if scores is None or key not in place:
            return None, None
        return float(scores.scores[place[key]]), float(scores.percentile[place[key]])

    return tuple(
        _chosen(variant, titles[variant], chosen, figures, samples, colours, rows)
        for variant, chosen in keys.items()
        if chosen
    )


def _chosen(
    variant: str,
    title: str,
    keys: list[Key],
    figures: Callable[[Key], tuple[float | None, float | None]],
    samples: Mapping[Key, Sample],
    colours: Mapping[str, int],
    rows: int,
) -> Chosen:
    shown = tuple(
        Row(i + 1, key[0], colours.get(key[0], 0), key[1], *figures(key), _text(samples.get(key)))
        for i, key in enumerate(keys[:rows])
    )
    lines = ((i + 1, *key, *figures(key)) for i, key in enumerate(keys[:CSV_ROWS]))
    csv = to_csv(("rank", "source", "id", "score", "percentile"), lines)
    uri = f"data:text/csv;charset=utf-8;base64,{base64.b64encode(csv.encode()).decode()}"
    return Chosen(variant, title, shown, len(keys), uri)


def _text(sample: Sample | None) -> str:
    """The beginning of what the sample teaches to say."""
    if sample is None:
        return ""
    joined = " ".join(readable(turn) for turn in sample.turns if turn.role == "assistant")
    return joined if len(joined) <= 140 else joined[:139].rstrip() + "…"
