"""Only what was measured and tested is claimed."""

from __future__ import annotations

from dataclasses import replace

from embodied_midtrain.report.answer import Answer, answer, initialisations
from embodied_midtrain.report.summary import BenchmarkResult, Comparison, Summary, VariantResult

VARIANTS = (
    VariantResult("shelf", 0.60, 0.5, 0.7, 80, "off the shelf"),
    VariantResult("selected", 0.80, 0.7, 0.88, 80, "mid-trained on selected"),
    VariantResult("scratch", 0.40, 0.3, 0.5, 80, "random language model"),
)
BETTER = Comparison("selected", "shelf", 0.2, 0.06, 0.34, 0.01, "selected is ahead", "better")
UNSURE = replace(
    BETTER, difference=0.05, low=-0.1, high=0.2, p=0.5, verdict="no more than noise", outcome="cannot tell"
)
APART = Comparison("shelf", "scratch", 0.2, 0.05, 0.35, 0.01, "it tells them apart", "better", "initialisation")
NOT_APART = replace(APART, verdict="This benchmark cannot tell initialisations apart.", outcome="cannot tell")
RUN = Summary("run", variants=VARIANTS, comparisons=(BETTER, APART))


def headline(found: Answer) -> str:
    """With plain spaces, as it reads."""
    return found.headline.replace("\N{NO-BREAK SPACE}", " ")


def test_a_clear_difference_is_the_headline() -> None:
    found = answer(RUN)
    assert found.tone == "clear"
    wanted = "Mid-trained on selected is ahead of off the shelf: 80 % (70–88 %) success against 60 % (50–70 %)."
    assert headline(found) == wanted
    assert found.sentences == ("Selected is ahead", "It tells them apart")


def test_noise_is_called_noise_and_the_budget_too_small() -> None:
    found = answer(replace(RUN, comparisons=(UNSURE, APART)))
    assert found.tone == "unclear" and headline(found).startswith("No clear winner: Mid-trained on selected")
    assert any("below about 15 percentage points" in s and "80 episodes" in s for s in found.sentences)


def test_where_all_solve_the_same_nobody_is_ahead() -> None:
    equal = tuple(replace(v, success=0.0, low=0.0, high=0.5) for v in VARIANTS)
    nothing = replace(UNSURE, difference=0.0, low=0.0, high=0.0)
    found = answer(replace(RUN, variants=equal, comparisons=(nothing, NOT_APART)))
    assert headline(found) == "No difference: every variant solves 0 % (0–50 %) of its episodes."
    assert found.tone == "unclear" and any(", small differences cannot be told" in s for s in found.sentences)


def test_where_scratch_does_as_well_no_order_is_clear() -> None:
    found = answer(replace(RUN, comparisons=(BETTER, NOT_APART)))
    assert found.tone == "unclear"
    assert found.sentences[0] == "This benchmark cannot tell initialisations apart."


def test_scratch_that_wins_does_not_make_the_benchmark_tell_apart() -> None:
    worse = replace(APART, outcome="worse", verdict="scratch does better")
    assert initialisations(replace(RUN, comparisons=(worse,))) == (False, ("scratch does better",))


def test_without_a_control_it_says_so() -> None:
    apart, said = initialisations(replace(RUN, comparisons=(BETTER,)))
    assert apart is None and "is not known" in said[0]


def test_the_control_is_no_candidate() -> None:
    lucky = (*VARIANTS[:2], replace(VARIANTS[2], success=0.99))
    assert "selected" in answer(replace(RUN, variants=lucky)).headline


def test_a_baseline_that_wins_is_the_answer() -> None:
    variants = (replace(VARIANTS[0], success=0.9), replace(VARIANTS[1], success=0.5), VARIANTS[2])
    worse = replace(BETTER, difference=-0.4, low=-0.5, high=-0.3, outcome="worse", verdict="selected is behind")
    found = answer(replace(RUN, variants=variants, comparisons=(worse, APART)))
    assert (
        headline(found).startswith("Off the shelf is ahead of mid-trained on selected: 90 %") and found.tone == "clear"
    )


def test_a_decided_pair_that_leaves_the_best_one_out_is_no_answer() -> None:
    third = VariantResult("random", 0.85, 0.75, 0.92, 80, "mid-trained on random")
    unsure = replace(UNSURE, variant="random")
    found = answer(replace(RUN, variants=(*VARIANTS, third), comparisons=(BETTER, unsure, APART)))
    assert headline(found).startswith("No clear winner: Mid-trained on random") and found.tone == "unclear"


def test_ahead_of_one_and_not_clearly_of_the_reference_is_not_clear() -> None:
    third = VariantResult("random", 0.5, 0.4, 0.6, 80, "mid-trained on random")
    beaten = replace(BETTER, baseline="random", verdict="selected beats random")
    found = answer(replace(RUN, variants=(*VARIANTS, third), comparisons=(UNSURE, beaten, APART)))
    assert headline(found).startswith(
        "Mid-trained on selected is ahead of mid-trained on random, not clearly of off the shelf: 80 %"
    )
    assert found.tone == "unclear" and {"No more than noise", "Selected beats random"} <= set(found.sentences)


def test_untested_differences_and_no_rollouts() -> None:
    assert any("not tested" in s for s in answer(replace(RUN, comparisons=())).sentences)
    assert answer(Summary("x")).tone == "none"


SEVERAL = Summary(
    "run",
    benchmarks=(
        BenchmarkResult(
            "calvin", "CALVIN", "vla-eval, calvin-abc-d", ("calvin/shelf", "calvin/selected"), ("emt serve",)
        ),
        BenchmarkResult("libero", "LIBERO", "built-in", variants=VARIANTS[:2], comparisons=(BETTER,)),
    ),
)


def test_benchmarks_are_answered_each_for_itself() -> None:
    found = answer(SEVERAL)
    assert (found.headline, found.tone) == ("Played on 1 of 2 benchmarks.", "clear")
    libero, calvin = found.sentences
    assert libero.startswith("LIBERO: Mid-trained on selected is ahead of off the shelf") and "not known" in libero
    assert calvin == "CALVIN: not played yet with 2 policies (vla-eval, calvin-abc-d)."
    waiting = answer(replace(SEVERAL, benchmarks=SEVERAL.benchmarks[:1]))
    assert (waiting.headline, waiting.tone) == ("No answer yet: played on 0 of 1 benchmarks.", "none")


def test_a_rehearsal_claims_nothing() -> None:
    found = answer(replace(SEVERAL, scale=0.001))
    assert found.tone == "unclear" and "says nothing about success" in found.sentences[0]
