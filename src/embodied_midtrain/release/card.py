"""A model card: what a mid-trained backbone was made from and how, as the model hub shows it.

Everything in it is read from artifacts; what is not known is left out or said to be unknown, never guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from embodied_midtrain.artifacts import Artifact, StageError, read_json
from embodied_midtrain.diagnostics.distance import in_order
from embodied_midtrain.proximity.select import read_selection
from embodied_midtrain.sources.opening import read_samples

UNKNOWN = "unknown"
OWN_KIND = "embodied_compact"
"""transformers' model_type of the compact backbone, whose classes only this package has."""


@dataclass(frozen=True)
class Told:
    """What a card is written from, beside the mid-trained backbone itself; what is None is left out.

    Attributes:
        base: what was mid-trained, as others find it: a hub name, or "compact".
        licence: of the weights, by the hub's short names; the base's licence binds it.
        pool: the pool's path, for the licences of what was drawn.
        images: folder that image paths in a conversation file start from.
        selection: the 'emt select' artifact.
        retention, drift: artifacts of these commands.
        rollouts: 'emt rollout' artifacts of policies that were fine-tuned from it.
    """

    base: str | None = None
    licence: str | None = None
    pool: str | None = None
    images: Path | None = None
    selection: Artifact | None = None
    retention: Artifact | None = None
    drift: Artifact | None = None
    rollouts: tuple[Artifact, ...] = ()


def write_card(midtrained: Artifact, told: Told, *, title: str) -> str:
    """The card in Markdown, with the hub's front matter.

    Raises:
        StageError: where an artifact is not of this model or not what it should be.
    """
    kind = str(read_json(midtrained.file("model/config.json")).get("model_type", ""))
    parts = [
        _front(told, kind),
        f"# {title}\n",
        _what(midtrained, told.base or midtrained.counts.get("base")),
        _data(midtrained, told),
        "\n".join([*settings(midtrained), "", "Next-token loss on the answers only.", ""]),
        _losses(midtrained),
        *_results(midtrained, told),
        _loading(kind),
        _versions(midtrained),
    ]
    return "\n".join(parts)


def _front(told: Told, kind: str) -> str:
    front: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["robotics", "vision-language-model", "mid-training", "embodied-midtrain"],
    }
    if told.licence:
        front["license"] = told.licence
    # Only what the user says is a name on the hub: the label of a folder looks like one.
    if told.base and told.base != "compact" and kind != OWN_KIND:
        front["base_model"] = told.base
        front["base_model_relation"] = "finetune"
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n"


def _what(midtrained: Artifact, base: str | None) -> str:
    counts = midtrained.counts
    return (
        f"A vision-language model ({_code(base)}) mid-trained with embodied-midtrain on {counts['samples_seen']:,} "
        f"samples ({counts['tokens_seen']:,} tokens; how they were chosen stands below), as a start for robot "
        "policies. It is meant to be fine-tuned; it does not act by itself.\n\n"
        "Method: EmbodiedMidtrain (arXiv 2604.20012). It was not tested for safety or truth as a chat model. The "
        "data's licences (below) and the base model's bind its use.\n"
    )


def _code(text: str | None) -> str:
    return f"`{text}`" if text else f"base {UNKNOWN}"


def _data(midtrained: Artifact, told: Told) -> str:
    licences = _licences(midtrained, told) if told.pool is not None else {}
    lines = ["## Data", "", "| source | selected | drawn | share | licences |", "|---|---:|---:|---:|---|"]
    for source, row in midtrained.counts["composition"].items():
        own = "; ".join(f"{name} ({n})" for name, n in licences.get(source, Counter()).most_common()) or UNKNOWN
        lines.append(f"| {source} | {row['selected']} | {row['drawn']} | {row['realised']:.1%} | {own} |")
    if midtrained.counts["repeated"]:
        lines += ["", f"{midtrained.counts['repeated']} draws are repeats."]
    if skipped := midtrained.counts["skipped"]:
        lines += ["", f"Left out: {', '.join(f'{n} {reason}' for reason, n in skipped.items())}."]
    if told.selection is not None:
        config = told.selection.manifest["config"]
        lines += [
            "",
            f"Selected by `{config['selector']}`: {told.selection.counts['selected']} of "
            f"{told.selection.counts['pool']} samples (seed {config['seed']}).",
        ]
    return "\n".join([*lines, ""])


def _licences(midtrained: Artifact, told: Told) -> dict[str, Counter[str]]:
    """By source, the licences of the selected samples."""
    found: dict[str, Counter[str]] = {}
    for source, licence in _selected_licences(midtrained, told):
        found.setdefault(source, Counter())[licence or UNKNOWN] += 1
    return found


def _selected_licences(midtrained: Artifact, told: Told) -> Iterator[tuple[str, str]]:
    assert told.pool is not None
    if told.selection is None:
        raise StageError("the licences of what was drawn need the selection too: give --selection")
    if midtrained.manifest["inputs"].get("selection") != told.selection.fingerprint:
        raise StageError(f"{told.selection.path} is not the selection that {midtrained.path} was trained on.")
    keys = read_selection(told.selection)[: midtrained.manifest["config"].get("keep")]
    for sample in read_samples(told.pool, keys, images=told.images):
        yield sample.source, " ".join(sample.licence.replace("|", "/").split())


def settings(trained: Artifact) -> list[str]:
    """How it was trained: the lines of a table."""
    rows = [f"| {name} | {_shown(value)} |" for name, value in sorted(trained.manifest["config"].items())]
    return ["## Training", "", "| setting | value |", "|---|---|", *rows]


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _losses(midtrained: Artifact) -> str:
    losses = read_json(midtrained.file("curve.json"))["loss"]
    tenth = max(1, len(losses) // 10)
    first, last = (sum(part) / len(part) for part in (losses[:tenth], losses[-tenth:]))
    return (
        f"Loss over {len(losses)} steps: {first:.3f} (mean of the first {tenth}) to {last:.3f} (mean of the last "
        f"{tenth}).\n"
    )


def _results(midtrained: Artifact, told: Told) -> Iterator[str]:
    if told.retention is not None:
        yield _retention(read_json(told.retention.file("retention.json")))
    if told.drift is not None:
        if told.drift.manifest["inputs"].get("base") != midtrained.manifest["inputs"]["backbone"]:
            raise StageError(f"{told.drift.path} compares with another base than {midtrained.path} was made from.")
        parts = read_json(told.drift.file("drift.json"))["weights"]["parts"]
        moved = ", ".join(f"{name} {row['relative']:.4f}" for name, row in in_order(parts))
        yield f"## Drift from the base\n\nRelative distance of the weights: {moved}.\n"
    if told.rollouts:
        lines = ["## Policies fine-tuned from it", "", "| rollouts | success | 95 % interval | episodes |"]
        lines.append("|---|---:|---:|---:|")
        for artifact in told.rollouts:
            row = read_json(artifact.file("results.json"))["all"]
            span = f"{row['low']:.1%} to {row['high']:.1%}"
            lines.append(f"| {artifact.path.name} | {row['success']:.1%} | {span} | {row['episodes']} |")
        yield "\n".join([*lines, ""])


def _retention(facts: Mapping[str, Any]) -> str:
    models: Sequence[str] = facts["models"]
    lines = ["## General ability, before and after", "", f"| ability (questions, chance) | {' | '.join(models)} |"]
    lines.append("|---|" + "---:|" * len(models))
    for ability, own in facts["abilities"].items():
        shares = " | ".join(
            f"{own['right'][m]['share']:.1%} ({own['right'][m]['low']:.1%} to {own['right'][m]['high']:.1%})"
            for m in models
        )
        lines.append(f"| {ability} ({own['questions']}, {own['chance']:.0%}) | {shares} |")
    return "\n".join([*lines, "", "Right answers of held-out questions by likelihood, Wilson's 95 % intervals.", ""])


def _loading(kind: str) -> str:
    lines = ["## Loading", "", "```python"]
    if kind == OWN_KIND:
        lines += ["from embodied_midtrain.backbones.opening import load_backbone", "", 'load_backbone("FOLDER")']
    else:
        lines += [
            "from transformers import AutoModelForImageTextToText, AutoProcessor",
            "",
            'model = AutoModelForImageTextToText.from_pretrained("FOLDER_OR_NAME")',
            'processor = AutoProcessor.from_pretrained("FOLDER_OR_NAME")',
        ]
    lines += ["```"]
    return "\n".join([*lines, ""])


def _versions(midtrained: Artifact) -> str:
    inputs = ", ".join(f"{name} {own}" for name, own in midtrained.manifest["inputs"].items())
    return f"{versions(midtrained)} Artifact {midtrained.fingerprint}; inputs: {inputs}.\n"


def versions(made: Artifact) -> str:
    """Of what it was made with."""
    manifest = made.manifest
    packages = ", ".join(f"{name} {version}" for name, version in manifest["packages"].items())
    return f"## Versions\n\nembodied-midtrain {manifest['code']}, Python {manifest['python']}, {packages}."
