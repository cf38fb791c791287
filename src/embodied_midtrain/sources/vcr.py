"""Records of VCR (Visual Commonsense Reasoning): texts are lists of words and of lists of object numbers."""

from __future__ import annotations

from typing import Any

from embodied_midtrain.samples import BadSample


def rewrite(record: dict[str, Any]) -> dict[str, Any]:
    """A question with its answer, objects called by their class and number ("person 1").

    Args:
        record: `objects`, `question`, `answer_choices`, `answer_label` (and the rationale's), `img_fn`, `annot_id`.

    Raises:
        BadSample: where one of these is missing or does not fit the others.
    """
    try:
        objects = record["objects"]
        answer = record["answer_choices"][record["answer_label"]]
        said = _text(answer, objects)
        if "rationale_label" in record:
            said = f"{said} {_text(record['rationale_choices'][record['rationale_label']], objects)}"
        return {
            "id": record["annot_id"],
            "image": record["img_fn"],
            "question": _text(record["question"], objects),
            "answer": said,
        }
    except (KeyError, IndexError, TypeError) as error:
        raise BadSample("broken record", f"no record of VCR: {type(error).__name__} {error}") from error


def _text(words: list[Any], objects: list[str]) -> str:
    parts: list[str] = []
    for word in words:
        text = " and ".join(f"{objects[n]} {n + 1}" for n in word) if isinstance(word, list) else str(word)
        glued = parts and (text in {".", ",", "?", "!", ";", ":", "'s", "n't"} or text.startswith("'"))
        if glued:
            parts[-1] += text
        else:
            parts.append(text)
    return " ".join(parts)
