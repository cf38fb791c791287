"""What was kept: answers of several models to the same questions as a table, for programs and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embodied_midtrain.diagnostics.abilities import Question
from embodied_midtrain.intervals import Difference, compare, corrected, wilson

LEAST = 10
"""Questions below which an ability is not asked for."""
WORDS = {"better": "gained", "worse": "lost", "cannot tell": "cannot tell"}


def summarise(
    rows: Sequence[Mapping[str, Any]], models: Sequence[str], asked: Mapping[str, list[Question]], config: Any
) -> dict[str, Any]:
    """Of each ability and of all questions together: chance, shares with intervals, and each model against the first,
    corrected for all of these tests (Holm).

    Args:
        rows: model, ability, right and right_other of each answer; each model's in the order of `asked`.
    """
    groups = {ability: {ability} for ability in asked} | ({"all": set(asked)} if len(asked) > 1 else {})
    own = {name: [row for row in rows if row["ability"] in members] for name, members in groups.items()}
    right = {
        name: {model: _shares([row for row in rows if row["model"] == model]) for model in models}
        for name, rows in own.items()
    }
    tests = {(name, model): _against(own[name], model, models[0]) for name in groups for model in models[1:]}
    found = dict(zip(tests, corrected(list(tests.values())), strict=True))
    return {
        "models": list(models),
        "choices": config.choices,
        "abilities": {
            name: {
                "questions": sum(len(asked[ability]) for ability in members),
                "chance": _mean([q.chance for ability in sorted(members) for q in asked[ability]]),
                "sources": sorted({q.sample.source for ability in members for q in asked[ability]}),
                # In the order of `models`, for programs that know no model's name.
                "shares": [right[name][model]["share"] for model in models],
                "right": right[name],
                "against": {model: _told(found[name, model]) for model in models[1:]},
            }
            for name, members in groups.items()
        },
    }


def _shares(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    right = [bool(row["right"]) for row in rows]
    low, high = wilson(sum(right), len(right))
    found = {"share": round(_mean(right), 4), "low": round(low, 4), "high": round(high, 4)}
    blind = [row["right_other"] for row in rows]
    return found if None in blind else {**found, "wrong_picture": round(_mean(blind), 4)}


def _against(rows: Sequence[Mapping[str, Any]], model: str, first: str) -> Difference:
    right = {name: [bool(row["right"]) for row in rows if row["model"] == name] for name in (model, first)}
    return compare(right[model], right[first], [row["ability"] for row in rows if row["model"] == first])


def _told(pair: Difference) -> dict[str, Any]:
    return {
        "difference": round(pair.difference, 4),
        "low": round(pair.low, 4),
        "high": round(pair.high, 4),
        "p": pair.p,
        "p_adjusted": pair.p_adjusted,
        "outcome": WORDS[pair.outcome],
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def print_retention(facts: Mapping[str, Any]) -> None:
    """A table: an ability a block, a model a line."""
    width = max(len(model) for model in facts["models"])
    for ability, own in facts["abilities"].items():
        print(f"{ability}: {own['questions']} held-out questions, chance {own['chance']:.1%}")
        for model, share in own["right"].items():
            blind = f"  wrong picture {share['wrong_picture']:.1%}" if "wrong_picture" in share else ""
            line = f"  {model:<{width}}  {share['share']:>6.1%} ({share['low']:.1%} to {share['high']:.1%}){blind}"
            if (pair := own["against"].get(model)) is not None:
                line += (
                    f"  {100 * pair['difference']:+.1f} points ({100 * pair['low']:+.1f} to {100 * pair['high']:+.1f}, "
                    f"p = {pair['p']:.2g}, {pair['p_adjusted']:.2g} by Holm): {pair['outcome']}"
                )
            print(line)
    for task, shares in facts.get("lmms", {}).items():
        print(f"{task} (lmms-eval)")
        for model, share in shares.items():
            span = f" ({share['low']:.1%} to {share['high']:.1%}, n = {share['questions']})" if "low" in share else ""
            print(f"  {model:<{width}}  {share['share']:>6.1%}{span}")
