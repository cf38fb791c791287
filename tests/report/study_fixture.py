"""A study's document with everything in it: two benchmarks, two heads, a control, a failure, figures."""

from __future__ import annotations

from pathlib import Path

from embodied_midtrain.benchmarks.rollout import TaskResult
from embodied_midtrain.report.study import (
    StudyBenchmark,
    StudyCell,
    StudyComparison,
    StudyFigure,
    StudyStage,
    StudySummary,
    StudyVariant,
    save_study,
)
from embodied_midtrain.report.summary import Provenance, StageTime

RATES = {"base": 0.5, "grounding": 0.75, "spatial": 0.5, "scratch": 0.25}
TITLES = {"base": "off the shelf", "grounding": "<b>Grounding</b> | domain", "spatial": "Spatial", "scratch": "scratch"}
COLUMNS = [(benchmark, head) for benchmark in ("sorting", "named") for head in ("mlp", "flow")]


def share(rate: float, episodes: int) -> TaskResult:
    return TaskResult.of([n < rate * episodes for n in range(episodes)])


def cell(variant: str, benchmark: str, head: str) -> StudyCell:
    rate = RATES[variant]
    tasks = {name: share(rate, 24) for name in ("animal", "food")}
    by_seed = {"0": rate - 0.05, "1": rate, "2": rate + 0.05}
    return StudyCell(variant, benchmark, head, share(rate, 144), tasks, by_seed, 0.05)


def comparison(variant: str, benchmark: str, head: str) -> StudyComparison:
    difference = RATES[variant] - RATES["base"]
    outcome = "better" if difference > 0 else "worse" if difference < 0 else "cannot tell"
    if variant == "grounding" and (benchmark, head) != ("sorting", "mlp"):
        outcome = "cannot tell"
    return StudyComparison(
        variant=variant,
        against="base",
        benchmark=benchmark,
        head=head,
        pairs=144,
        difference=difference,
        low=difference - 0.08,
        high=difference + 0.08,
        p=0.001 if difference else 1.0,
        p_adjusted=0.008 if difference else 1.0,
        outcome=outcome,
        verdict=f"{TITLES[variant]} and off the shelf.",
        by_seed={"0": difference, "1": difference, "2": difference},
    )


def make_study(folder: Path) -> StudySummary:
    played = ("base", "grounding", "spatial", "scratch")
    state = dict.fromkeys(played, "done") | {"broken": "failed"}
    variants = tuple(
        StudyVariant(
            name,
            TITLES.get(name, "broken"),
            ("compact", f"midtrain, {name}"),
            state[name],  # type: ignore[arg-type]
            "midtrain (broken, seed 0): no sample can be used" if name == "broken" else "",
            name == "scratch",
            "" if name == "base" else "base",
        )
        for name in (*played, "broken")
    )
    stages = tuple(
        StudyStage(StageTime(f"midtrain-{name}", 12.5, 10**9, how, note), "midtrain", f"{name}, seed 0", (name,))
        for name, how, note in (("grounding", "done", ""), ("broken", "failed", "no sample can be used"))
    )
    figures = tuple(
        StudyFigure("drift", "text states", name, {"0": 1 - n / 10}, 1 - n / 10) for n, name in enumerate(played)
    )
    summary = StudySummary(
        name="domains",
        about="Which capability helps a policy?",
        training_seeds=(0, 1, 2),
        created="2026-01-02T03:04:05+00:00",
        machine="a machine",
        state="partial",
        baseline="base",
        benchmarks=(StudyBenchmark("sorting", "Sorting", "loop"), StudyBenchmark("named", "Named", "loop")),
        heads=("mlp", "flow"),
        variants=variants,
        cells=tuple(cell(v, b, h) for v in played for b, h in COLUMNS),
        comparisons=tuple(comparison(v, b, h) for v in played[1:] for b, h in COLUMNS),
        figures=figures,
        stages=stages,
        notes=("mix (compose): 4 samples of books were drawn 12 times, each 3.0 times on average.",),
        commands=("emt serve policy --benchmark x", "vla-eval run --config x"),
        provenance=Provenance(code="1", python="3.11", command="emt study domains", recipe="name: domains"),
    )
    save_study(folder, summary)
    return summary
