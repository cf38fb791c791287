"""From an audit's figures to plain words: explicit rules, each with its threshold and its sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

State = Literal["good", "bad", "note"]


@dataclass(frozen=True)
class Limits:
    """From where on a figure counts."""

    tells: float = 0.9
    """Balanced accuracy of a probe that tells pool and target apart."""
    follows: float = 0.8
    """Rank correlation of two rankings that count as one and the same."""
    picture: float = 0.5
    """Rank correlation, the robot's words in place of a sample's own, from which the picture decides."""
    stable: float = 0.9
    """Rank correlation between fits that differ by chance only, or by half of the target."""
    length: float = 0.5
    """Rank correlation of score and text length, either way, from which length is in the ranking."""
    leaks: int = 1
    """Pool samples that show a target frame, from which on the pool leaks."""


@dataclass(frozen=True)
class Figures:
    """What was measured; None where it was not.

    Attributes:
        full, text, image, size, length: accuracy of a probe from that alone.
        other_prompt: least rank correlation with the rankings under other templates.
        sized, worded, blank: rank correlation once pictures have the frames' size, words are the robot's, or pictures
            are grey.
        by_length: rank correlation of score and text length.
        seeds, halves: least rank correlation between fits.
        leaks: pool samples that show a target frame.
        notes: warnings of the fit.
    """

    full: float | None = None
    text: float | None = None
    image: float | None = None
    size: float | None = None
    length: float | None = None
    other_prompt: float | None = None
    sized: float | None = None
    worded: float | None = None
    blank: float | None = None
    by_length: float | None = None
    seeds: float | None = None
    halves: float | None = None
    leaks: int | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)


@dataclass(frozen=True)
class Finding:
    """One rule's sentence."""

    rule: str
    state: State
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """`words` is one of "leaks", "pool and target look alike", "shortcut: ...", "partly a shortcut: ...", "unstable",
    "cannot tell" or "looks at the scene"."""

    words: str
    findings: tuple[Finding, ...]


def judge(found: Figures, limits: Limits) -> Verdict:
    """Apply every rule; the words follow from the first that speaks: leaks, shortcuts, instability."""
    findings = [
        *_leaks(found, limits),
        *_full(found, limits),
        *_size(found, limits),
        *_text(found, limits),
        *_length(found, limits),
        *_stable(found, limits),
        *(Finding("fit", "note", f"The fit says: {note}") for note in found.notes),
    ]
    bad = [finding.rule for finding in findings if finding.state == "bad"]
    return Verdict(_words(found, limits, bad), tuple(findings))


def _words(found: Figures, limits: Limits, bad: list[str]) -> str:
    if "leaks" in bad:
        return "leaks"
    if found.full is not None and found.full < limits.tells:
        return "pool and target look alike"
    shortcuts = [rule for rule in ("text", "image size", "text length") if rule in bad]
    if shortcuts:
        # Where pictures of one size, under one prompt, tell the sides apart too, the scene has a part in it.
        partly = "" if found.image is not None and found.image < limits.tells else "partly a "
        return f"{partly}shortcut: {', '.join(shortcuts)}"
    if "features" in bad:
        return "shortcut: something that is not in the picture"
    if "stability" in bad:
        return "unstable"
    if found.other_prompt is None and found.worded is None and found.image is None:
        return "cannot tell"
    return "looks at the scene"


def _leaks(found: Figures, limits: Limits) -> list[Finding]:
    if found.leaks is None:
        return []
    if found.leaks >= limits.leaks:
        many = "One pool sample shows" if found.leaks == 1 else f"{found.leaks} pool samples show"
        return [Finding("leaks", "bad", f"{many} a target frame: take them out before you believe a result.")]
    return [Finding("leaks", "good", "No pool sample shows a target frame.")]


def _full(found: Figures, limits: Limits) -> list[Finding]:
    if found.full is None:
        return []
    share = _percent(found.full)
    if found.full < limits.tells:
        return [Finding("features", "note", f"A probe tells pool and target apart only in {share} by the features.")]
    seen = "" if found.image is None else f"; by the picture alone in {_percent(found.image)}"
    state: State = "bad" if found.image is not None and found.image < limits.tells else "good"
    return [Finding("features", state, f"A probe tells pool and target apart in {share} by the features{seen}.")]


def _size(found: Figures, limits: Limits) -> list[Finding]:
    if found.size is None:
        return []
    said = f"The size of the picture alone tells the sides apart in {_percent(found.size)}"
    if found.size < limits.tells:
        return [Finding("image size", "good", f"{said}: not enough to go by.")]
    if found.sized is None:
        return [Finding("image size", "bad", f"{said}, and nothing shows that the ranking does not follow it.")]
    same = f"with all pictures at the size of the robot's the ranking {_stays(found.sized, limits)}"
    state: State = "good" if found.sized >= limits.follows else "bad"
    return [Finding("image size", state, f"{said}; {same}.")]


def _text(found: Figures, limits: Limits) -> list[Finding]:
    if found.text is None:
        return []
    said = f"The words alone tell the sides apart in {_percent(found.text)}"
    if found.text < limits.tells:
        return [Finding("text", "good", f"{said}: not enough to go by.")]
    shown, cleared = [], []
    if found.other_prompt is not None:
        shown.append(f"under another robot prompt the ranking {_stays(found.other_prompt, limits)}")
        cleared.append(found.other_prompt >= limits.follows)
    if found.worded is not None and found.blank is not None:
        picture, word = found.worded, found.blank
        shown.append(
            f"with the robot's words in place of their own samples keep {picture:.2f} of their order (rank "
            f"correlation), with grey pictures {word:.2f}"
        )
        cleared.append(picture >= limits.picture and picture > word)
    if found.image is not None and found.image < limits.tells:
        shown.append(f"pictures alone tell them apart in only {_percent(found.image)}")
        cleared.append(False)
    if not shown:
        return [Finding("text", "bad", f"{said}, and nothing shows that the ranking does not follow them.")]
    return [Finding("text", "good" if all(cleared) else "bad", f"{said}; {'; '.join(shown)}.")]


def _length(found: Figures, limits: Limits) -> list[Finding]:
    if found.length is None or found.by_length is None:
        return []
    said = f"The length of the text alone tells the sides apart in {_percent(found.length)}, and goes with the score"
    follows = found.length >= limits.tells and abs(found.by_length) >= limits.length
    return [
        Finding("text length", "bad" if follows else "good", f"{said} by a rank correlation of {found.by_length:.2f}.")
    ]


def _stable(found: Figures, limits: Limits) -> list[Finding]:
    findings = []
    for value, what in ((found.seeds, "with another seed"), (found.halves, "fitted to the other half of the target")):
        if value is not None:
            state: State = "good" if value >= limits.stable else "bad"
            said = "stays" if value >= limits.stable else "changes"
            findings.append(Finding("stability", state, f"The ranking {said} {what} (Spearman at least {value:.2f})."))
    return findings


def _stays(value: float, limits: Limits) -> str:
    return f"{'stays' if value >= limits.follows else 'changes'} (Spearman {value:.2f})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
