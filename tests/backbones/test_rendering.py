from typing import Any

import pytest

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.backbones.rendering import Piece, messages_of, pieces, prompt_messages
from embodied_midtrain.samples import BadSample


def template(messages: list[dict[str, Any]], open_answer: bool) -> str:
    text = ""
    for message in messages:
        parts = ["*" if p["type"] == "image" else p["text"] for p in message["content"]]
        text += f"[{message['role'][0]}]{''.join(parts)}.\n"
    return text + "[a]" * open_answer


def test_a_conversation_is_cut_at_its_answers() -> None:
    messages = messages_of([("user", "A "), ("assistant", "B"), ("user", "C"), ("assistant", "D")], 2)
    assert pieces(template, messages) == [
        Piece("[u]**A.\n[a]", False, 2),
        Piece("B.", True),
        Piece("\n[u]C.\n[a]", False),
        Piece("D.", True),
    ]


def test_a_prompt_is_one_piece_with_the_answer_opened() -> None:
    assert pieces(template, prompt_messages("Say.", 1), open_answer=True) == [Piece("[u]*Say..\n[a]", False, 1)]


def test_pictures_before_an_answer_get_a_turn() -> None:
    assert [m["role"] for m in messages_of([("assistant", "B")], 1)] == ["user", "assistant"]


def test_nothing_said_is_refused() -> None:
    with pytest.raises(BadSample, match="empty text"):
        messages_of([("user", "A"), ("assistant", " <image> ")], 1)


def test_a_template_that_rewrites_the_past_is_refused() -> None:
    def counted(messages: list[dict[str, Any]], open_answer: bool) -> str:
        return f"{len(messages)} turns: " + template(messages, open_answer)

    with pytest.raises(StageError, match="step by step"):
        pieces(counted, messages_of([("user", "A"), ("assistant", "B"), ("user", "C"), ("assistant", "D")], 0))
