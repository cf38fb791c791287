"""Answers questions about episodes a second time, from their wording and the trace's bare numbers.

Shares with the generators only the segmentation and the words of sub-actions; `wrong` says where an answer does not
hold.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from embodied_midtrain.coupled.phases import phases
from embodied_midtrain.coupled.trace import Trace
from embodied_midtrain.coupled.words import said
from embodied_midtrain.simulation.truth import FINGERS, FIRST

ORDINALS = ["first", "second", "third", "fourth"]
SWAPS = {"yes": "no", "open": "closed", "first": "second", "held": "touched", "second": "fourth", "third": "second"}
SWAPS |= {"forward": "back", "left": "right", "up": "down"}


def wrong(row: dict[str, Any], trace: Trace) -> str:
    """Empty where the answer holds; else what is the matter."""
    true = _CHECKS[row["kind"]](row, trace)
    return "" if true is True or true == row["answer"] else f"{row['answer']}, but {true}"


def spoilt(row: dict[str, Any], trace: Trace) -> dict[str, Any]:
    """The question with a wrong answer, which `wrong` must notice."""
    if row["shown"]:
        return {**row, "shown": [[0.01, 0.01]]}
    given = row["answer"]
    if row["kind"] == "order":
        return {**row, "answer": given[::-1]}
    both = SWAPS | {b: a for a, b in SWAPS.items() if b not in SWAPS}
    if given in both:
        return {**row, "answer": both[given]}
    names = [thing.name for thing in trace.things.named if thing.name != given]
    return {**row, "answer": names[0] if row["kind"] in ("held", "nearest", "moved") else "nothing of this kind"}


def _thing(row: dict[str, Any], trace: Trace) -> int:
    """The one thing that the wording names."""
    names = [thing.name for thing in trace.things.named]
    (found,) = {name for name in names if re.search(rf"\b[Tt]he {re.escape(name)}\b", row["question"])}
    return names.index(found)


def _middle(trace: Trace, look: int, thing: int) -> np.ndarray:
    return (trace.things.low[look, thing].astype(float) + trace.things.high[look, thing]) / 2


def _step(row: dict[str, Any], trace: Trace) -> int:
    return int(trace.looks[row["look"]])


def _yes(so: bool) -> str:
    return "yes" if so else "no"


def _hand(row: dict[str, Any], trace: Trace) -> bool | str:
    """The sight through the point passes between the fingertips."""
    view = trace.view(row["views"][0])
    camera, (height, width) = view.cameras[row["look"]], view.size
    right, up, forward = camera.axes
    across = (row["shown"][0][0] * width - camera.middle[0]) / camera.focal[0]
    down = (row["shown"][0][1] * height - camera.middle[1]) / camera.focal[1]
    sight = forward + across * right - down * up
    way = trace.place[_step(row, trace)] - camera.position
    off = float(np.linalg.norm(way - (way @ sight) / (sight @ sight) * sight))
    seen = (view.seen[row["look"]] == FINGERS).any()
    return bool(seen and off < 0.004) or f"{off:.3f} m beside the fingertips"


def _held(row: dict[str, Any], trace: Trace) -> str:
    held = int(trace.held[_step(row, trace)])
    return trace.things.named[held].name if held >= 0 else "nothing"


def _opening(row: dict[str, Any], trace: Trace) -> str:
    now, low, high = trace.opening[_step(row, trace)], trace.opening.min(), trace.opening.max()
    return "open" if now - low > high - now else "closed"


def _reach(row: dict[str, Any], trace: Trace) -> str:
    off = _middle(trace, row["look"], _thing(row, trace)) - trace.place[_step(row, trace)]
    return _yes(float((off**2).sum()) < 0.15**2)


def _nearest(row: dict[str, Any], trace: Trace) -> str:
    seen, place = trace.view(row["views"][0]).seen[row["look"]], trace.place[_step(row, trace)]
    away = {
        thing.name: float(np.linalg.norm(_middle(trace, row["look"], n) - place))
        for n, thing in enumerate(trace.things.named)
        if (seen == FIRST + n).any()
    }
    return min(away, key=lambda name: away[name])


def _hand_sees(row: dict[str, Any], trace: Trace) -> str:
    return _yes(bool((trace.view("wrist").seen[row["look"]] == FIRST + _thing(row, trace)).any()))


def _lines(trace: Trace) -> tuple[list[str], list[tuple[int, int]]]:
    found = phases(trace)
    return [said(trace, phase) for phase in found], [(phase.start, phase.stop) for phase in found]


def _quoted(row: dict[str, Any], lines: list[str]) -> list[int]:
    """The sub-actions that the question names after the instruction, in the order of their mention."""
    text = row["question"].split(": ", 1)[1] if ": " in row["question"] else row["question"]
    places = {}
    # A longer sub-action may hold a shorter one: "carry the cup to the plate".
    for line in sorted(set(lines), key=len, reverse=True):
        at = text.find(line)
        if at >= 0:
            places[at] = lines.index(line)
            text = text.replace(line, "#" * len(line))
    return [places[at] for at in sorted(places)]


def _done(row: dict[str, Any], trace: Trace) -> str:
    lines, spans = _lines(trace)
    (asked,) = _quoted(row, lines)
    return _yes(spans[asked][1] <= _step(row, trace))


def _before(row: dict[str, Any], trace: Trace) -> str:
    lines, spans = _lines(trace)
    (asked,) = _quoted(row, lines)
    missing = [line for n, line in enumerate(lines) if n < asked and spans[n][1] > _step(row, trace)]
    return "; ".join(missing) or "nothing"


def _earlier(row: dict[str, Any], trace: Trace) -> str:
    lines, spans = _lines(trace)
    return lines[min(_quoted(row, lines), key=lambda n: spans[n][0])]


def _first_of_two(row: dict[str, Any], trace: Trace) -> str:
    steps = [int(trace.looks[look]) for look in row["looks"]]
    return ORDINALS[steps.index(min(steps))]


def _order(row: dict[str, Any], trace: Trace) -> str:
    return ", ".join(str(n + 1) for n in np.argsort(trace.looks[list(row["looks"])]))


def _event(row: dict[str, Any], trace: Trace) -> str:
    looks = row["looks"]
    assert sorted(looks) == list(looks), "in the order of time"
    if row["kind"] == "moved-in":
        thing = _thing(row, trace)
        far = [np.linalg.norm(_middle(trace, look, thing) - _middle(trace, looks[0], thing)) for look in looks]
        return ORDINALS[next(n for n, off in enumerate(far) if off > 0.015)]
    holding = row["kind"] == "grasped-in"
    return ORDINALS[next(n for n, look in enumerate(looks) if (trace.held[trace.looks[look]] >= 0) == holding)]


def _moved(row: dict[str, Any], trace: Trace) -> str:
    a, b = row["looks"]
    assert a < b
    things = range(len(trace.things))
    far = [np.linalg.norm(_middle(trace, b, n) - _middle(trace, a, n)) > 0.015 for n in things]
    return ", ".join(trace.things.named[n].name for n in things if far[n]) or "none of them"


def _cause(row: dict[str, Any], trace: Trace) -> str:
    start, stop = (int(trace.looks[look]) for look in row["looks"])
    thing = _thing(row, trace)
    return "held" if thing in trace.held[start : stop + 1].tolist() else "touched"


def _motion(row: dict[str, Any], trace: Trace) -> str:
    a, b = (trace.place[trace.looks[look]].astype(float) for look in row["looks"])
    ahead = trace.forward
    left = np.array([-ahead[1], ahead[0], 0.0])
    parts = {"forward": (b - a) @ ahead, "left": (b - a) @ left, "up": (b - a)[2]}
    name = max(parts, key=lambda way: abs(parts[way]))
    return name if parts[name] > 0 else {"forward": "back", "left": "right", "up": "down"}[name]


def _happened(row: dict[str, Any], trace: Trace) -> str:
    lines, spans = _lines(trace)
    start, stop = (int(trace.looks[look]) for look in row["looks"])
    return "; ".join(line for line, (_, end) in zip(lines, spans, strict=True) if start < end <= stop)


_CHECKS = {
    "hand": _hand,
    "held": _held,
    "opening": _opening,
    "in-reach": _reach,
    "nearest": _nearest,
    "hand-sees": _hand_sees,
    "done": _done,
    "before": _before,
    "earlier": _earlier,
    "first-of-two": _first_of_two,
    "order": _order,
    "grasped-in": _event,
    "released-in": _event,
    "moved-in": _event,
    "moved": _moved,
    "cause": _cause,
    "motion": _motion,
    "happened": _happened,
}
CHECKED = frozenset(_CHECKS)
