"""An audit for people: the verdict, its reasons, and the figures as a table."""

from __future__ import annotations

from typing import Any

PROBED = {
    "full": "all features",
    "text": "words alone",
    "length": "length of the text alone",
    "size": "size of the picture alone",
    "image": "picture alone, all of one size, under one prompt",
}
"""What a probe was given, for readers."""


def print_audit(facts: dict[str, Any]) -> None:
    """The verdict, the reasons, and the figures as a table."""
    marks = {"good": "+", "bad": "!", "note": " "}
    print(f"verdict: {facts['verdict']}")
    for finding in facts["findings"]:
        print(f"  {marks[finding['state']]} {finding['sentence']}")
    print("told apart, balanced accuracy of a probe on held-out rows:")
    for name, probe in sorted(facts.get("probes", {}).items(), key=lambda row: -row[1]["accuracy"]):
        print(f"  {100 * probe['accuracy']:6.1f} %  {PROBED.get(name, name)}")
    for name, ranking in facts["rankings"].items():
        inside = "" if ranking["within"] is None else f", within sources {ranking['within']:.3f}"
        print(f"ranking {name}: Spearman {ranking['overall']:.3f}{inside}")
    for name, what in (("seeds", "seeds"), ("halves", "halves of the target")):
        if name in facts:
            own = facts[name]
            print(
                f"over {what}: Spearman {own['least']:.3f} (median {own['median']:.3f}), the chosen in common "
                f"{own['least_overlap']:.0%} (median {own['median_overlap']:.0%})"
            )
    for leak in facts.get("leaks", {}).get("first", []):
        print(f"leak: {leak['source']}/{leak['id']} shows {leak['task']}/{leak['frame']} ({leak['bits']} bits apart)")
    for name, why in facts["not_run"].items():
        print(f"not looked at: {name}. {why}")
