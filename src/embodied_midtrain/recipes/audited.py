"""What a run's audit adds to its summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embodied_midtrain.artifacts import Artifact, read_json
from embodied_midtrain.diagnostics.shown import PROBED
from embodied_midtrain.report import summary as doc


def audited(folder: Path) -> doc.AuditFacts:
    """The facts of a finished 'emt audit' folder."""
    facts = read_json(Artifact.open(folder, "audit").file("audit.json"))
    leaks = facts.get("leaks")
    probes = sorted(facts.get("probes", {}).items(), key=lambda row: (-row[1]["accuracy"], row[0]))
    return doc.AuditFacts(
        verdict=facts["verdict"],
        findings=tuple(doc.AuditFinding(**finding) for finding in facts["findings"]),
        probes=tuple(doc.AuditProbe(PROBED.get(name, name), probe["accuracy"]) for name, probe in probes),
        rankings=tuple(_rankings(facts)),
        leaked=leaks["samples"] if leaks else None,
        pictures=leaks["pictures"] if leaks else 0,
        frames=leaks["frames"] if leaks else 0,
        leaks=tuple(
            doc.AuditLeak(row["source"], row["id"], f"{row['task']}/{row['frame']}", row["bits"])
            for row in (leaks["first"] if leaks else ())
        ),
        not_run=tuple(f"{name}. {why}" for name, why in facts["not_run"].items()),
    )


def _rankings(facts: dict[str, Any]) -> list[doc.AuditRanking]:
    rows = [
        doc.AuditRanking(f"the robot's prompt ({name})", found["overall"], found["within"])
        for name, found in facts["rankings"].items()
        if found["overall"] is not None
    ]
    altered = facts.get("altered", {})
    said = {
        "sized": "pictures: all of the robot's size",
        "worded": "words: the robot's in place of the samples' own",
        "blank": "pictures: grey in place of the samples' own",
    }
    rows += [doc.AuditRanking(text, altered[name]) for name, text in said.items() if altered.get(name) is not None]
    for name, text in (("seeds", "the seed of the fit"), ("halves", "the half of the target that is fitted to")):
        if name in facts:
            own = facts[name]
            rows.append(doc.AuditRanking(f"{text} (least of {own['fits']})", own["least"], None, own["least_overlap"]))
    return rows
