"""Find every answer of a pool of `emt capability` again by other means: python -m tools.check_capabilities POOL [DEMOS]

Scenes are put up anew and looked at by sight rays and MuJoCo's own camera, episodes by the trace's bare numbers. Each
question is also given a wrong answer, which has to be noticed. What `coupled` asks, tools.check_coupled checks.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embodied_midtrain.coupled.couple import read_facts
from embodied_midtrain.coupled.opening import open_traces
from embodied_midtrain.coupled.questions import CATEGORY
from embodied_midtrain.sources.registry.scenes_tabletop import TabletopStage
from tests.capabilities.scene_witness import spoilt_camera, spoilt_scene, witness, wrong_camera, wrong_scene
from tools.capability_answers import CHECKED, spoilt, wrong

Verdict = tuple[dict[str, Any], str, bool | None]
"""The row, what is the matter with its answer, and whether a wrong one was noticed (None: there is none to give)."""


def of_scenes(rows: list[dict[str, Any]]) -> Iterator[Verdict]:
    """Of scenes without a robot."""
    if not rows:
        return
    with tempfile.TemporaryDirectory() as cache:
        stage = TabletopStage(Path(cache))
        for name in dict.fromkeys(row["episode"] for row in rows):
            own = [row for row in rows if row["episode"] == name]
            for row in (row for row in own if row["source"] == "camera"):
                yield row, wrong_camera(row, stage), bool(wrong_camera(spoilt_camera(row), stage))
            named = [row for row in own if row["source"] != "camera"]
            seen = witness(stage, name) if named else None
            for row in named:
                assert seen is not None
                lie = spoilt_scene(row, seen)
                yield row, wrong_scene(row, seen), None if lie is None else bool(wrong_scene(lie, seen))
        stage.close()


def of_episodes(rows: list[dict[str, Any]], demos: str) -> Iterator[Verdict]:
    """Of looks of demonstrations."""
    for trace in open_traces(demos):
        for row in (row for row in rows if row["episode"] == trace.id):
            yield row, wrong(row, trace), bool(wrong(spoilt(row, trace), trace))


def main(pool: str, demos: str = "") -> int:
    """Print what was checked and what does not hold; 1 where anything does not."""
    rows = list(read_facts(Path(pool)))
    scenes = [row for row in rows if row["episode"].startswith("tabletop-")]
    told = [row for row in rows if "looks" in row and row["kind"] in CHECKED]
    verdicts = [*of_scenes(scenes), *(of_episodes(told, demos) if demos else ())]
    checked, noticed = Counter[str](), Counter[str]()
    faults = [(row, fault) for row, fault, _ in verdicts if fault]
    for row, _, told_apart in verdicts:
        checked[row["source"]] += 1
        noticed[row["source"]] += told_apart is not False
    for row, fault in faults[:20]:
        print(f"{row['source']}/{row['id']}: {row['question']} {row['answer']} {fault}")
    for source in sorted(checked):
        print(
            f"{source:<12}{checked[source]:>7} checked{checked[source] - noticed[source]:>5} wrong answers not noticed"
        )
    asked_by_coupled = sum(row["kind"] in CATEGORY and "looks" in row for row in rows)
    print(f"{len(verdicts)} answers, {len(faults)} wrong; {asked_by_coupled} of {len(rows)} are asked by coupled")
    return bool(faults) or checked != noticed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
