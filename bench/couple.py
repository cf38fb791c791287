"""Question-answer pairs per second from recorded traces, and with the simulator's rendering included.

Ours is what `emt couple` does with traces in memory: phases, all questions of each look, balanced choice, encoding of
the pictures, Parquet. The peer is the plain way to write such a thing: each question is made by itself, and looks its
things up by itself, with no state shared between the questions of a look, balanced in no way, and each sample encodes
its picture and becomes a line of JSON. Neither renders anything. No other tool makes such data from a recorded state,
so there is no outside peer.

With rendering: an expert of Meta-World plays in two processes, and truth is recorded as `emt demos --truth-every` does.

    python bench/couple.py
    python bench/couple.py --recorded runs/told --repeats 5
"""

from __future__ import annotations

import argparse
import base64
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.benchmarks.demos import DemosConfig, record_demos
from embodied_midtrain.coupled.couple import CoupleConfig, couple
from embodied_midtrain.coupled.moment import Moment
from embodied_midtrain.coupled.opening import Traces, open_traces
from embodied_midtrain.coupled.phases import phases
from embodied_midtrain.coupled.questions import WEIGHTS, questions
from embodied_midtrain.coupled.trace import Trace
from embodied_midtrain.sources.registry.images import picture

FLOOR, RENDERED_FLOOR = 1000.0, 50.0
"""Pairs a second of CPU time, without and with rendering on two cores; the exit status is 1 below."""
CONFIG = CoupleConfig(looks_per_episode=100, questions_per_look=8)


def in_memory(traces: list[Trace], copies: int) -> Traces:
    """The same episodes again and again, under other names, with their pictures read."""
    read = [
        replace(trace, views=tuple(replace(view, frames=view.frames[:]) for view in trace.views)) for trace in traces
    ]
    many = [replace(trace, id=f"{trace.id}-{n}") for n in range(copies) for trace in read]
    return Traces("bench", f"bench-{copies}", len(many), Skips(), lambda: iter(many))


def ours(traces: Traces) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return int(couple(folder, CONFIG, episodes=traces).counts["used"])


def _children() -> float:
    """Seconds of CPU time of processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rate(make: Callable[[], int]) -> tuple[float, float]:
    """Pairs a second on the clock, and a second of CPU time (what counts where others keep the machine busy)."""
    clock, cpu = time.perf_counter(), time.process_time()
    made = make()
    return made / (time.perf_counter() - clock), made / (time.process_time() - cpu)


def peer(traces: Traces, pairs: int) -> int:
    """One question at a time."""
    made, rng = 0, np.random.default_rng(0)
    with tempfile.TemporaryFile("w") as file:
        for trace in traces:
            for look in range(len(trace.looks)):
                for number in range(CONFIG.questions_per_look):
                    moment = Moment(trace, look, phases(trace), rng)
                    options = list(questions(moment, WEIGHTS))
                    asked = options[(number * 7 + look) % len(options)]
                    shots = [moment.shot(view) for view in asked.views]
                    images = [picture(Image.fromarray(shot.view.frames[look])).read() for shot in shots if shot]
                    row = {
                        "question": asked.phrasings[0],
                        "answer": asked.answer,
                        "images": [base64.b64encode(image).decode() for image in images],
                    }
                    file.write(json.dumps(row) + "\n")
                    made += 1
                    if made == pairs:
                        return made
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=4, help="recorded for the measurement")
    parser.add_argument("--copies", type=int, default=8, help="of each of them, in memory")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--recorded", type=Path, help="demonstrations with truth; nothing is rendered then")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, rendered, drawing = given.recorded, 0.0, 0.0
        if folder is None:
            folder = Path(temporary) / "demos"
            config = DemosConfig(
                tasks=("pick-place-v3", "drawer-open-v3"), episodes=given.episodes // 2, size=given.size, truth_every=10
            )
            started, spent = time.perf_counter(), _children()
            record_demos(folder, config, processes=2)
            rendered, drawing = time.perf_counter() - started, (_children() - spent) / 2
        recorded = list(open_traces(folder))
        few, many = in_memory(recorded, 1), in_memory(recorded, given.copies)
        made_few = ours(few)
        rates = {"ours": [rate(lambda: ours(many))], "peer": [rate(lambda: peer(few, 200))]}
        for _ in range(given.repeats - 1):
            rates["ours"].append(rate(lambda: ours(many)))
            rates["peer"].append(rate(lambda: peer(few, 200)))
    (fast, fast_cpu), (plain, plain_cpu) = (
        [statistics.median(column) for column in zip(*rates[name], strict=True)] for name in ("ours", "peer")
    )
    print(f"pairs per second from recorded state, medians of {given.repeats} (per second of CPU time)")
    print(f"ours {fast:.0f} ({fast_cpu:.0f}), peer {plain:.0f} ({plain_cpu:.0f}): {fast_cpu / plain_cpu:.1f} times")
    print(f"floor {FLOOR:.0f} pairs a second")
    ok = fast_cpu >= FLOOR
    if rendered:
        whole, whole_cpu = made_few / (rendered + made_few / fast), made_few / (drawing + made_few / fast_cpu)
        print(f"with simulation and rendering, two processes, {CONFIG.questions_per_look} questions a look:")
        print(f"{whole:.0f} ({whole_cpu:.0f}) pairs a second, floor {RENDERED_FLOOR:.0f}; {made_few} pairs")
        ok = ok and whole_cpu >= RENDERED_FLOOR
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
