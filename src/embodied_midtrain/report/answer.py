"""What the run says, in sentences, before any chart.

Only what was measured and tested is claimed: a difference is named one only where the comparison's interval says
so, and a benchmark that cannot tell a random language model from a pretrained one is said to prove nothing about
initialisations, whatever the order of the figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from embodied_midtrain.report.summary import BenchmarkResult, Comparison, Summary, VariantResult


@dataclass(frozen=True, slots=True)
class Answer:
    """`tone` colours the page's head: whether there is an answer, none yet, or none possible with this budget."""

    headline: str
    sentences: tuple[str, ...]
    tone: Literal["clear", "unclear", "none"]


def percent(share: float) -> str:
    """Whole per cent; the sign never stands alone on a line."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def title_of(summary: Summary, variant: str) -> str:
    """How readers call a variant; its own name where the summary gives none."""
    return next((v.title for v in summary.variants if v.variant == variant and v.title), variant)


def with_interval(result: VariantResult) -> str:
    return f"{percent(result.success)} ({percent(result.low)[:-2]}–{percent(result.high)})"


def controls(summary: Summary) -> set[str]:
    """Variants that only serve to test the benchmark: a random language model is no candidate for an answer."""
    return {c.baseline for c in summary.comparisons if c.kind == "initialisation"}


def answer(summary: Summary) -> Answer:
    """The answer of a run, or why there is none."""
    if summary.benchmarks:
        return _answers(summary)
    if not summary.variants:
        return Answer(
            "No answer yet: no policy has been rolled out.",
            ("This page shows what was measured so far. Success is only known after closed-loop rollouts.",),
            "none",
        )
    aside = controls(summary)
    candidates = [v for v in summary.variants if v.variant not in aside] or list(summary.variants)
    best = max(candidates, key=lambda v: v.success)
    tested = [c for c in summary.comparisons if c.kind == "variant"]
    told = [c for c in tested if best.variant in (c.variant, c.baseline) or c.outcome != "cannot tell"]
    sentences = [c.verdict for c in told]
    beaten = {_loser(c) for c in tested if c.outcome != "cannot tell" and _winner(c) == best.variant}
    behind = [v for v in candidates if v.variant in beaten]
    level = [v for v in candidates if v.variant not in beaten and v is not best]
    if not tested:
        headline = f"{_name(summary, best)} solves {with_interval(best)} of its episodes."
        sentences.append("Differences between variants were not tested in this run.")
    elif behind:
        headline = f"{_name(summary, best)} is ahead of {_list(title_of(summary, v.variant) for v in behind)}"
        headline += f", not clearly of {_list(title_of(summary, v.variant) for v in level)}" if level else ""
        headline += f": {with_interval(best)} success against {_list(map(with_interval, behind))}."
    elif len(candidates) > 1 and all(v.success == best.success for v in candidates):
        headline = f"No difference: every variant solves {with_interval(best)} of its episodes."
    else:
        headline = f"No clear winner: {_name(summary, best)} solves {with_interval(best)}, no more than noise ahead."
    if tested and level:
        points = round(max((c.high - c.low) / 2 for c in tested) * 100)
        # Where all episodes ended alike the paired interval has no width, which is no proof of precision.
        what = f"differences below about {points} percentage points" if points else "small differences"
        sentences.append(
            f"With {min(v.episodes for v in candidates)} episodes a variant, {what} cannot be told from noise: "
            "this budget is too small for a finer answer."
        )
    apart, verdicts = initialisations(summary)
    # The question is whether mid-training helps: an answer has to be one about the reference, the first variant.
    about_reference = best is candidates[0] or candidates[0].variant in beaten
    # That the benchmark cannot tell is what a reader must know before any order of the variants.
    ordered = (*verdicts, *sentences) if apart is False else (*sentences, *verdicts)
    said = tuple(sentence[:1].upper() + sentence[1:] for sentence in ordered if sentence)
    return Answer(headline, said, "clear" if behind and about_reference and apart is not False else "unclear")


def alone(summary: Summary, benchmark: BenchmarkResult) -> Summary:
    """The run as if it had only that one of its benchmarks."""
    return replace(
        summary,
        benchmark=benchmark.title,
        benchmarks=(),
        rollouts=benchmark.rollouts,
        variants=benchmark.variants,
        comparisons=benchmark.comparisons,
        videos=benchmark.videos,
    )


def _answers(summary: Summary) -> Answer:
    """Each benchmark for itself: success on one is not added to success on another."""
    played = [one for one in summary.benchmarks if one.variants]
    sentences = []
    if summary.scale != 1:
        sentences.append(
            f"Every count was multiplied by {summary.scale:g}: this checks the recipe from end to end and says nothing "
            "about success."
        )
    found = {one.name: answer(alone(summary, one)) for one in played}
    # Of a rehearsal, nothing is to be read into the order.
    more = {name: " ".join(one.sentences) if summary.scale == 1 else "" for name, one in found.items()}
    sentences += [f"{one.title}: {found[one.name].headline} {more[one.name]}".rstrip() for one in played]
    sentences += [
        f"{one.title}: not played yet with {len(one.waiting)} policies ({one.where})."
        for one in summary.benchmarks
        if one.waiting
    ]
    headline = f"Played on {len(played)} of {len(summary.benchmarks)} benchmarks."
    if not played:
        return Answer(f"No answer yet: {headline[:1].lower()}{headline[1:]}", tuple(sentences), "none")
    clear = summary.scale == 1 and any(one.tone == "clear" for one in found.values())
    return Answer(headline, tuple(sentences), "clear" if clear else "unclear")


def _name(summary: Summary, result: VariantResult) -> str:
    title = title_of(summary, result.variant)
    return title[:1].upper() + title[1:]


def _list(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _winner(comparison: Comparison) -> str:
    return comparison.variant if comparison.outcome == "better" else comparison.baseline


def _loser(comparison: Comparison) -> str:
    return comparison.baseline if comparison.outcome == "better" else comparison.variant


def initialisations(summary: Summary) -> tuple[bool | None, tuple[str, ...]]:
    """Whether the benchmark can tell initialisations apart (None: not tested), and the sentences that say so."""
    tests = [c for c in summary.comparisons if c.kind == "initialisation"]
    if not tests:
        unknown = (
            "No policy from a randomly initialised language model was run beside these: whether this benchmark can "
            "tell initialisations apart is not known."
        )
        return None, (unknown,)
    return any(c.outcome == "better" for c in tests), tuple(c.verdict for c in tests)
